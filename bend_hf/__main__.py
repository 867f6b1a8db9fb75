"""``python -m bend_hf`` is the command ``bend-hf``."""

from __future__ import annotations

import sys

from bend_hf.cli._main import main

if __name__ == "__main__":
    sys.exit(main())
