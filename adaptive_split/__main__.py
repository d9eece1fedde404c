"""Lets `python -m adaptive_split` stand for the command `adaptive-split`."""

import sys

from adaptive_split.cli import main

if __name__ == "__main__":
    sys.exit(main())
