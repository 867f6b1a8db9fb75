"""Builds the Hub-shaped dataset folders; the same as ``bend-hf build``.

python dataset_scripts/build.py gene_finding --data data --out bend
"""

from __future__ import annotations

import sys

from bend_hf.cli._main import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
