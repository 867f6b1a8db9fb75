"""How the commands speak: plain lines for people, and nothing of what libraries say of every request.

>>> start_logging()
"""

from __future__ import annotations

import logging
from typing import Final

_CHATTY: Final = ("httpx", "httpx2", "httpcore", "datasets", "evaluate", "filelock", "accelerate")


def start_logging() -> None:
    """Shows this package's messages as they are, of chatty libraries warnings alone; for commands, not on import."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
