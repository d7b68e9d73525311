"""Entry point of ``python -m skmimood``."""

from skmimood.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
