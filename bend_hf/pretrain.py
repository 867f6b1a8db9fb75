"""``python -m bend_hf.pretrain`` is the command ``bend-hf pretrain``, in the form that launchers start.

accelerate launch -m bend_hf.pretrain --model convnet --genome GRCh38.fa --out my-convnet
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bend_hf.cli import _main


def main(argv: Sequence[str] | None = None) -> int:
    """Pretrain a model; return the exit status.

    Args:
        argv: The flags; None takes those of the command line.
    """
    return _main.main(["pretrain", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
