"""GC and CpG content: the composition of a sequence, without its order. It is enough to find promoters.

>>> [control.key for control in CONTROLS]
['cpg', 'gc']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.runs.controls._features import KmerFeatures
from bend_hf.runs.controls._linear import SEARCH, learner
from bend_hf.runs.controls._spec import ControlResult, ControlSpec, needs_classes
from bend_hf.runs.controls._variants import cpg_changes, gc_around, variant_predictions
from bend_hf.tasks import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

_CG: Final = 6  # code of the 2-mer CG, with A C G T as the digits 0 to 3: 4 * 1 + 2
GC = KmerFeatures(k=1, feature_of_code=np.array([0, 1, 1, 0]), n_features=2, leave_out=1)
CPG = KmerFeatures(k=2, feature_of_code=(np.arange(16) == _CG).astype(np.int64), n_features=2, leave_out=1)


def _predict_gc(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
    if task.variant is not None:
        return ControlResult(
            predictions=variant_predictions(task, splits["test"], gc_around(splits["test"], task.variant))
        )
    return learner(lambda _: GC)(task, splits, seed)


def _predict_cpg(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
    if task.variant is not None:
        return ControlResult(predictions=variant_predictions(task, splits["test"], cpg_changes(splits["test"])))
    return learner(lambda _: CPG)(task, splits, seed)


CONTROLS = (
    ControlSpec(
        key="cpg",
        title="CpG content",
        text="Logistic regression on the fraction of CpG in a window; for a variant, the CpG it makes and breaks.",
        why_not=needs_classes,
        predict=_predict_cpg,
        head="LogisticRegression",
        search=SEARCH,
    ),
    ControlSpec(
        key="gc",
        title="GC content",
        text="Logistic regression on the fraction of G and C in a window; for a variant, that fraction around it.",
        why_not=needs_classes,
        predict=_predict_gc,
        head="LogisticRegression",
        search=SEARCH,
    ),
)
