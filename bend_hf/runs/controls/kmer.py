"""K-mer counts and a logistic regression: what can be learned without a network.

Labels of whole sequences and bins have no strand, so k-mers are counted on both strands (k = 5, 512 features). Labels
of nucleotides have one: 3-mers to the left and to the right of each are counted separately (128 features).

>>> from bend_hf.tasks import TASKS
>>> features_of(TASKS.get("gene_finding")).n_features, features_of(TASKS.get("histone_modification")).n_features
(64, 512)
"""

from __future__ import annotations

from bend_hf.runs.controls._features import KmerFeatures, kmer_features
from bend_hf.runs.controls._linear import SEARCH, learner
from bend_hf.runs.controls._spec import ControlSpec, needs_training
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import NucleotideClasses


def features_of(task: TaskSpec) -> KmerFeatures:
    """Return which k-mers are counted for a task."""
    if isinstance(task.label, NucleotideClasses):
        return kmer_features(3, both_strands=False)
    return kmer_features(5, both_strands=True)


CONTROLS = (
    ControlSpec(
        key="kmer",
        title="k-mers",
        text="Logistic regression on scaled fractions of k-mers in a window, C chosen on the validation split.",
        why_not=needs_training,
        predict=learner(features_of),
        head="LogisticRegression",
        search=SEARCH,
    ),
)
