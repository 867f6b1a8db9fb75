"""`python -m bend_hf.train`: trains and scores; see `bend_hf.runs.run`."""

import sys

from bend_hf.runs.run import main

if __name__ == "__main__":
    sys.exit(main())
