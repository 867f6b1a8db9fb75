"""Scores by a language model's likelihoods: ALT against REF, and how certain the model is of the site."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bend_hf.variants.batch import VariantBatch
from bend_hf.variants.scores import VariantScore


def _log_likelihood_ratio(batch: VariantBatch) -> NDArray[np.float64]:
    return batch.log_likelihood_ratio


def _entropy(batch: VariantBatch) -> NDArray[np.float64]:
    return batch.entropy_bits


SCORES = (
    VariantScore(
        key="log_likelihood_ratio",
        text="log-likelihood of ALT minus that of REF",
        rises_with_effect=False,
        compute=_log_likelihood_ratio,
        needs="likelihood",
        scores_indels=True,
        zero_is_neutral=True,
    ),
    VariantScore(
        key="entropy",
        text="entropy of the base at the site, in bits",
        rises_with_effect=False,
        compute=_entropy,
        needs="likelihood",
    ),
)
