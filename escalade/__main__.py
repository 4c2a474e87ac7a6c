"""`python -m escalade`."""

from __future__ import annotations

import sys

from escalade.cli import main

if __name__ == "__main__":
    sys.exit(main())
