"""`python -m headrace_services server start`: what `headrace server` is, without the rest of the CLI."""

from __future__ import annotations

import sys

from headrace_services.cli import main

if __name__ == "__main__":
    sys.exit(main())
