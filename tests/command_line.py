"""Parse the flags of a run, as ``bend-hf train`` does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bend_hf.config import RunConfig, add_run_flags, config_from_flags


def parse_run(argv: Sequence[str]) -> RunConfig:
    parser = argparse.ArgumentParser(prog="test", allow_abbrev=False)
    add_run_flags(parser)
    return config_from_flags(RunConfig, parser.parse_args(argv))
