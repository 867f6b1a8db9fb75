"""Build dataset folders in the layout of the Hub, as ``bend-hf build`` does.

python dataset_scripts/build.py gene_finding --data data --out bend
"""

from __future__ import annotations

import sys

from bend_hf.cli._main import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
