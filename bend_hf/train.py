"""``python -m bend_hf.train`` is the command ``bend-hf train``, in the form that launchers start.

accelerate launch -m bend_hf.train --task gene_finding --model onehot --data sample --epochs 5
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bend_hf.cli import _main


def main(argv: Sequence[str] | None = None) -> int:
    """Train and score a model; return the exit status.

    Args:
        argv: The flags; None takes those of the command line.
    """
    return _main.main(["train", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
