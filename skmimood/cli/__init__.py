"""The program ``skmimood``: arguments, messages and exit status. What its commands do is in `skmimood.jobs`."""

from skmimood.cli.program import main

__all__ = ["main"]
