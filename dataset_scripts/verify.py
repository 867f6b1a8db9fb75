"""Check a built folder against BED, labels and genome, as ``bend-hf verify`` does.

python dataset_scripts/verify.py gene_finding --data data --built bend
"""

from __future__ import annotations

import sys

from bend_hf.cli._main import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
