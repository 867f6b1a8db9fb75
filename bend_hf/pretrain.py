"""`python -m bend_hf.pretrain`; see `bend_hf.training.pretraining.run`."""

import sys

from bend_hf.training.pretraining.run import main

if __name__ == "__main__":
    sys.exit(main())
