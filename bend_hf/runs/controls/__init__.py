"""Controls: predictors that need no pretrained language model, scored on the same items as the models.

In: a task's splits, or the configuration of the model that is compared. Out: predictions, or the configuration of
another model; either becomes an ordinary result record. A control may need something of the machine, such as a trained
program; it says what, and is run if it is asked for. ``_features.py`` counts k-mers, ``_linear.py`` learns from
them, ``_variants.py`` describes variants. To add a control, add a file with a tuple ``CONTROLS`` of ``ControlSpec``.

>>> CONTROLS.names()
['augustus', 'cpg', 'gc', 'kmer', 'motifs', 'motifs+kmers', 'onehot', 'prevalence', 'random_twin', 'spliceai']
"""

from __future__ import annotations

from bend_hf.registry import Registry
from bend_hf.runs.controls._spec import ControlSpec

CONTROLS: Registry[ControlSpec] = Registry(kind="control", package="bend_hf.runs.controls", attribute="CONTROLS")

__all__ = ["CONTROLS", "ControlSpec"]
