"""The families of language models that can be pretrained, one file each.

>>> FAMILIES.get("convnet").objective
'masked'
"""

from __future__ import annotations

from typing import Final

from bend_hf.registry import Registry
from bend_hf.training.pretraining.families._family import SYMBOLS as SYMBOLS
from bend_hf.training.pretraining.families._family import Family as Family
from bend_hf.training.pretraining.families._family import Objective as Objective

FAMILIES: Final[Registry[Family]] = Registry(
    kind="model to pretrain", package="bend_hf.training.pretraining.families", attribute="FAMILIES"
)
