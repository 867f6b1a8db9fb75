"""Words of k letters and a logistic regression: what can be learned without a network.

Whole sequences and bins are read on both strands (k = 5, 512 features), as their labels have no strand. Nucleotides
have labels of a strand: words of three letters left and right of each are counted apart (128 features).

>>> words_of(TASKS.get("gene_finding")).n_features, words_of(TASKS.get("histone_modification")).n_features
(64, 512)
"""

from __future__ import annotations

from bend_hf.runs.controls._features import Words, kmer_words
from bend_hf.runs.controls._linear import learner
from bend_hf.runs.controls._spec import ControlSpec, needs_training
from bend_hf.tasks import TASKS as TASKS
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import NucleotideClasses


def words_of(task: TaskSpec) -> Words:
    """Which words are counted."""
    if isinstance(task.label, NucleotideClasses):
        return kmer_words(3, both_strands=False)
    return kmer_words(5, both_strands=True)


CONTROLS = (
    ControlSpec(
        key="kmer",
        title="k-mers",
        text="Logistic regression on shares of k-mers in a window, scaled, C chosen on validation.",
        why_not=needs_training,
        predict=learner(words_of),
        head="LogisticRegression",
    ),
)
