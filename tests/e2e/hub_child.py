"""Runs ``bend-hf`` for tests in a process of its own, where huggingface_hub does not wait between its tries.

python tests/e2e/hub_child.py push metric --namespace me
"""

from __future__ import annotations

import sys
import time

if __name__ == "__main__":
    time.sleep = lambda seconds: None
    from bend_hf.cli import main

    sys.exit(main(sys.argv[1:]))
