"""The registry of variant scores: ``SCORES``.

A score goes from a ``VariantBatch`` (REF and ALT alleles, their embeddings and likelihoods) to one number per variant.
Each score is one column of the prediction file. ``embedding.py`` compares embeddings, ``likelihood.py`` likelihoods.
To add a score, add a module here with a tuple ``SCORES`` of ``VariantScore``, or an entry to one of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.registry import Registry
from bend_hf.user_code import identity_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bend_hf.variants.batch import VariantBatch

Needs: TypeAlias = Literal["variant", "sequence", "likelihood"]

MAIN: Final = "score"  # BEND's cosine distance, by which a record is ranked


@dataclass(frozen=True, kw_only=True)
class VariantScore:
    """One score of a variant.

    Attributes:
        key: Its column in the prediction file.
        text: What it measures, for records and plots.
        rises_with_effect: Whether a larger value suggests an effect. If not, AUROC and AUPRC use the negative.
        compute: Computes it for a batch, float64, shape (n,); nan if a variant has no such score.
        needs: ``variant`` if the embeddings at the variant are enough, ``sequence`` if those of the whole sequence
            are needed (left out with ``averages=False``), ``likelihood`` if a language-model head is needed.
        scores_indels: Whether ``compute`` also takes a batch of insertions and deletions.
        zero_is_neutral: Whether the sign says which allele is preferred, so that another sign is another answer.
    """

    key: str
    text: str
    rises_with_effect: bool
    compute: Callable[[VariantBatch], NDArray[np.float64]]
    needs: Needs = "variant"
    scores_indels: bool = False
    zero_is_neutral: bool = False


SCORES: Registry[VariantScore] = Registry(kind="variant score", package="bend_hf.variants.scores", attribute="SCORES")


def own_scores() -> dict[str, str]:
    """Return the hash of the code of each score that is not of this package, by key."""
    return {score.key: identity for score in SCORES.in_order() if (identity := identity_of(score))}


def score_keys() -> list[str]:
    """List the scores in the order of their columns."""
    return [score.key for score in SCORES.in_order()]
