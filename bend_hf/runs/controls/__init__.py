"""Control rows: what needs no language model, scored on the same items, so that a model's score can be judged.

A module of this package with a tuple ``CONTROLS`` adds to them.

>>> CONTROLS.names()
['cpg', 'gc', 'kmer', 'onehot', 'prevalence', 'random_twin']
"""

from __future__ import annotations

from bend_hf.registry import Registry
from bend_hf.runs.controls._spec import ControlSpec

CONTROLS: Registry[ControlSpec] = Registry(kind="control", package="bend_hf.runs.controls", attribute="CONTROLS")

__all__ = ["CONTROLS", "ControlSpec"]
