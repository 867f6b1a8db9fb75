"""Choose the weights of the gene grammar on the validation split, and decode the test split with it.

The record keeps the score of the most probable classes next to that of the grammar, and both predictions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.gene_structure import NAME as STRUCTURE
from bend_hf.evaluation.gene_structure import letters_of
from bend_hf.evaluation.metrics import Rows, score
from bend_hf.evaluation.predictions import LOG_PROBABILITY, Predictions
from bend_hf.training.gene_grammar import N_CLASSES, Grammar, count_transitions, decode, grammars_to_try
from bend_hf.types import Floats, Json

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

ARGMAX: Final = "argmax"


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Test predictions of a grammar.

    Attributes:
        predictions: The classes of the best gene structures.
        argmax: The most probable classes.
        grammar: With the weights that were best on the validation split.
        tried: Weights and scores of each grammar that was tried.
    """

    predictions: Predictions
    argmax: Predictions
    grammar: Grammar
    tried: tuple[dict[str, Json], ...]

    def as_json(self, metric: str) -> dict[str, Json]:
        """Return what a record keeps of the decoding, besides its scores."""
        by = f"{metric}, then exon F1, on the validation split"
        return {"method": "grammar", **self.grammar.as_json(), "chosen_by": by, "tried": list(self.tried)}


def decode_genes(predict: Callable[[str], Predictions], splits: dict[str, Dataset], metric: str) -> Decoded:
    """Decode the test split.

    Args:
        predict: Predicts a split by name, with log probabilities.
        splits: The datasets: train, validation and test.
        metric: The main metric.
    """
    counted = _counted(splits["train"])
    validation, said = _taken_apart(predict("validation"))
    letters = letters_of(splits["validation"], validation)
    best, best_value, tried = counted, (-math.inf, -math.inf), list[dict[str, Json]]()
    for grammar in grammars_to_try(counted):
        found = _decoded(validation, said, letters, grammar)
        rows = Rows(lengths=np.diff(found.windows))
        value, exons = (score(name, found.values, found.target, rows=rows).value for name in (metric, STRUCTURE))
        weights = {"transition_weight": grammar.transition_weight, "splice_weight": grammar.splice_weight}
        tried.append({**weights, metric: _finite(value), STRUCTURE: _finite(exons)})
        if (_known(value), _known(exons)) > best_value:  # the first of equals stays
            best, best_value = grammar, (_known(value), _known(exons))
    log.info(
        "grammar: transitions count %g, splice sites other than GT and AG cost %g",
        best.transition_weight,
        best.splice_weight,
    )
    argmax, said = _taken_apart(predict("test"))
    found = _decoded(argmax, said, letters_of(splits["test"], argmax), best)
    return Decoded(predictions=found, argmax=argmax, grammar=best, tried=tuple(tried))


def _decoded(predictions: Predictions, said: Floats, letters: NDArray[np.uint8], grammar: Grammar) -> Predictions:
    return replace(predictions, predicted=decode(said, np.diff(predictions.windows), letters, grammar))


def _taken_apart(predictions: Predictions) -> tuple[Predictions, Floats]:
    """Separate predictions from their log probabilities."""
    column = predictions.columns[LOG_PROBABILITY]
    said = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, N_CLASSES)
    rest = {name: values for name, values in predictions.columns.items() if name != LOG_PROBABILITY}
    return replace(predictions, columns=rest), said


def _counted(train: Dataset) -> Grammar:
    column = train.select_columns(["labels"]).with_format("arrow")[:]["labels"].combine_chunks()
    if not len(column):
        raise ConfigError(
            "the training split holds no labels from which transitions could be counted; leave --decode out"
        )
    return count_transitions(
        column.flatten().to_numpy(zero_copy_only=False), np.diff(column.offsets.to_numpy().astype(np.int64))
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _known(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
