"""Where the folders that travel with the package are: metrics, cards, launch configurations, the sample.

In a checkout they stand at its top; in an installed wheel inside the package. This one function knows.

>>> asset_folder("metrics").is_dir()
True
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from bend_hf.errors import SourceError

Asset: TypeAlias = Literal["metrics", "model_cards", "accelerate_configs", "dataset_scripts", "sample", "pretrained"]


def asset_folder(name: Asset) -> Path:
    """The folder of that name, in a checkout or in an installed wheel.

    Raises:
        SourceError: Neither place holds it; the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_assets" / name, package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SourceError(f"the folder {name!r} of bend_hf is missing below {package}; install the package again")
