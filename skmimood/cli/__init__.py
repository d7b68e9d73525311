"""The program ``skmimood``: its options, signals, warnings as lines of text, and exit status.

No command does its work here: each makes a job of its options and gives it to `skmimood.jobs`. Nothing heavy is
imported before the options are known, so that ``--help`` does not wait for torch.
"""

from skmimood.cli.program import main

__all__ = ["main"]
