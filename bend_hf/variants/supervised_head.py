"""Supervised heads on the embeddings of both alleles, cross-validated in folds that share no sequence.

    result = score_variants(source, embedder, accelerator, ScoreSettings(keep_embeddings=True), checkpoint=checkpoint)
    heads = cross_validate_heads(result, checkpoint, accelerator)
    heads.detail["linear"]["auroc"]["value"]

Heads are reported in addition to the zero-shot scores, never instead of them. The features are [REF, ALT, ALT - REF]
at the variant, scaled to mean 0 and deviation 1 on the training folds. Each variant is predicted by the one head that
saw neither it nor a neighbor. The number of epochs is fixed, so nothing is chosen on test data.

Folds are whole chromosomes, or blocks of neighboring positions on a single chromosome:

>>> fold_by_position(["chr1", "chr2", "chr1"], np.array([5, 5, 9]), n_folds=5, apart_bp=100).fold.tolist()
[0, 1, 0]
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.errors import InputError
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.remarks import FEW_STEPS
from bend_hf.tables import counted
from bend_hf.types import Bools, Floats, Ints, Json, Labels
from bend_hf.variants.allele_store import AlleleStore
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.read import COORDINATES
from bend_hf.variants.score import ScoringResult
from bend_hf.variants.summary import METRICS, has_label, scores_of

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn

FoldsBy: TypeAlias = Literal["chromosome", "blocks of position"]
HeadKind: TypeAlias = Literal["linear", "mlp"]
HEAD_KINDS: Final[tuple[HeadKind, ...]] = get_args(HeadKind)
log = logging.getLogger(__name__)

_READ_VARIANTS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class PositionFolds:
    """Folds of n variants.

    Attributes:
        fold: The fold of each variant, counted from 0, shape (n,).
        by: What the folds are made of.
        n_folds: Number of folds.
    """

    fold: Ints
    by: FoldsBy
    n_folds: int


def fold_by_position(
    chromosome: Sequence[str] | pa.Array, start_bp: Ints, *, n_folds: int, apart_bp: int
) -> PositionFolds:
    """Split variants into folds that share no sequence.

    Whole chromosomes, the largest first, go to the fold that is smallest so far. Variants of a single chromosome are
    split into blocks of neighboring positions, which are only cut at gaps that are wide enough.

    Args:
        chromosome: Chromosome of each variant, length n.
        start_bp: Position of each variant, shape (n,).
        n_folds: Number of folds; there are fewer if there are fewer chromosomes or gaps.
        apart_bp: How far apart two variants must be for a cut between them: the length of the longest sequence that a
            model is shown.

    Raises:
        InputError: There is no gap to cut at.
    """
    names = pa.array(chromosome, pa.string()) if not isinstance(chromosome, pa.Array) else chromosome
    encoded = names.cast(pa.string()).dictionary_encode()
    code = encoded.indices.to_numpy().astype(np.int64)
    if len(encoded.dictionary) > 1:
        return _by_chromosome(code, n_folds)
    return _by_blocks(start_bp, n_folds, apart_bp)


def _by_chromosome(code: Ints, n_folds: int) -> PositionFolds:
    counts = np.bincount(code)
    n = min(n_folds, len(counts))
    load = np.zeros(n, np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for chromosome in np.argsort(-counts, kind="stable").tolist():
        fold_of[chromosome] = load.argmin()
        load[fold_of[chromosome]] += counts[chromosome]
    return PositionFolds(fold=fold_of[code], by="chromosome", n_folds=n)


def _by_blocks(start_bp: Ints, n_folds: int, apart_bp: int) -> PositionFolds:
    order = np.argsort(start_bp, kind="stable")
    ranked = start_bp[order]
    group = np.concatenate([[0], np.cumsum(np.diff(ranked) >= apart_bp)])
    size = np.bincount(group)
    middle = np.cumsum(size) - size / 2
    wanted = np.minimum((middle * n_folds / len(ranked)).astype(np.int64), n_folds - 1)
    if len(size) < 2:
        raise InputError(
            f"the {len(start_bp)} variants are on one chromosome without a gap of {apart_bp} bp to cut at. A head "
            "needs two folds that share no sequence; give more variants or leave out --probe."
        )
    if wanted[0] == wanted[-1]:  # one group has nearly all of them: cut once, as near to the middle as possible
        wanted = np.arange(len(size)) > np.abs(np.cumsum(size)[:-1] - len(ranked) / 2).argmin()
    block = np.unique(wanted, return_inverse=True)[1]
    fold = np.empty(len(start_bp), np.int64)
    fold[order] = block[group]
    return PositionFolds(fold=fold, by="blocks of position", n_folds=int(block[-1]) + 1)


@dataclass(frozen=True, kw_only=True)
class VariantHeadSettings:
    """How heads are trained. BEND trains none on variants, so these are our choices.

    Attributes:
        n_folds: Number of folds, if there are as many chromosomes or gaps.
        apart_bp: Width of a gap that separates two folds: the longest sequence that a model is shown.
        hidden: Width of the hidden layer of ``mlp``.
        epochs: Passes over the training folds.
        batch_size: Variants per step, over all processes.
        learning_rate: For AdamW.
        weight_decay: For AdamW.
        seed: For weights and shuffling.
    """

    n_folds: int = 5
    apart_bp: int = 1025
    hidden: int = 64
    epochs: int = 20
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class VariantHeadResult:
    """Scores and predictions of the heads.

    Attributes:
        detail: For a record: each metric of each head as the mean over folds, the folds, and the settings.
        predictions: Predictions of each head for every labeled variant, with a column ``fold``.
    """

    detail: dict[str, Json]
    predictions: dict[str, Predictions]


def cross_validate_heads(
    result: ScoringResult,
    checkpoint: ScoringCheckpoint,
    accelerator: Accelerator,
    settings: VariantHeadSettings | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VariantHeadResult:
    """Train and test a linear head and a small MLP on each fold.

    Args:
        result: From ``score_variants`` with ``keep_embeddings=True``.
        checkpoint: Holds the result's batches.
        accelerator: Device and processes.
        settings: How heads are trained.
        on_progress: Called with the number of trainings that are done, and their total.

    Raises:
        InputError: The labeled variants are of one class, or cannot be split into folds.
        RecordError: A batch is missing or holds no embeddings.
    """
    settings = settings or VariantHeadSettings()
    scored = result.predictions
    store = AlleleStore.gather(checkpoint, result.keys, scored.item, write=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    chosen = np.flatnonzero(has_label(scored) & store.has_embeddings)
    target = scored.target[chosen]
    n_classes = len(np.unique(target))
    if n_classes < 2:
        raise InputError(
            f"there are {len(chosen)} labeled variants of {n_classes} class; a head needs both. Leave out --probe."
        )
    columns = {name: column.take(pa.array(chosen)) for name, column in scored.columns.items()}
    folds = fold_by_position(
        columns["chromosome"], columns["start"].to_numpy(), n_folds=settings.n_folds, apart_bp=settings.apart_bp
    )
    trainer = _HeadTrainer(store=store, variants=chosen, target=target, accelerator=accelerator, settings=settings)
    predictions: dict[str, Predictions] = {}
    for number, kind in enumerate(HEAD_KINDS):
        values = np.empty(len(chosen), np.float32)
        for fold in range(folds.n_folds):
            test = folds.fold == fold
            values[test] = trainer.predict(kind, test)
            on_progress(number * folds.n_folds + fold + 1, len(HEAD_KINDS) * folds.n_folds)
        predictions[kind] = replace(
            scored,
            item=scored.item[chosen],
            windows=np.arange(len(chosen) + 1),
            target=target,
            score=values,
            columns={**{name: columns[name] for name in COORDINATES}, "fold": pa.array(folds.fold + 1)},
        )
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        store.remove()
    detail = heads_detail(predictions, settings)
    few = [one for one in _steps(np.bincount(folds.fold), settings).tolist() if one < FEW_STEPS]
    if few:
        log.warning(
            "the heads on the embeddings of variants took %s of the optimizer, fewer than %d; the zero-shot scores are "
            "not affected",
            counted(min(few), "step"),
            FEW_STEPS,
        )
    return VariantHeadResult(detail=detail, predictions=predictions)


def heads_detail(predictions: Mapping[str, Predictions], settings: VariantHeadSettings) -> dict[str, Json]:
    """Return what a record says of the heads: their metrics, folds, settings and budget.

    Args:
        predictions: Predictions of each head, with columns ``chromosome`` and ``fold``.
        settings: How the heads were trained.
    """
    first = next(iter(predictions.values()))
    fold = _fold_of(first)
    by: FoldsBy = "chromosome" if len(pc.unique(first.columns["chromosome"])) > 1 else "blocks of position"
    sizes = np.bincount(fold)
    detail: dict[str, Json] = {kind: _metrics(one) for kind, one in predictions.items()}
    detail["folds"] = {"by": by, "n": len(sizes), "variants": jsonable(sizes)}
    detail["settings"] = jsonable(asdict(settings))
    detail["budget"] = _budget(sizes, settings)
    return detail


def _fold_of(predictions: Predictions) -> Ints:
    """The fold of each variant, counted from 0, shape (n,)."""
    fold: Ints = predictions.columns["fold"].to_numpy(zero_copy_only=False).astype(np.int64) - 1
    return fold


def _steps(sizes: Ints, settings: VariantHeadSettings) -> Ints:
    """The steps of the optimizer that the head of each fold takes, shape (folds,)."""
    steps: Ints = settings.epochs * -(-(sizes.sum() - sizes) // settings.batch_size)
    return steps


def _budget(sizes: Ints, settings: VariantHeadSettings) -> dict[str, Json]:
    """Say how much the heads of each fold learn from; nothing is searched.

    Args:
        sizes: Variants of each fold, shape (folds,).
        settings: How heads are trained.
    """
    steps = _steps(sizes, settings)
    few = int(steps.min(initial=FEW_STEPS)) < FEW_STEPS
    return {"rows": jsonable(sizes.sum() - sizes), "steps": jsonable(steps), "few_steps": few, "searched": {}}


def _metrics(predictions: Predictions) -> Json:
    """Compute each metric as the mean over folds that have both classes, and over all variants at once."""
    values, fold_of = scores_of(predictions), _fold_of(predictions)
    n_folds = int(fold_of.max(initial=-1)) + 1
    entries: dict[str, Json] = {"n": len(predictions)}
    for metric in METRICS:
        by_fold = []
        for fold in range(n_folds):
            test = fold_of == fold
            if len(np.unique(predictions.target[test])) == 2:
                by_fold.append(score(metric, values[test], predictions.target[test]).value)
        fraction = float((predictions.target == 1).mean())
        entries[metric] = {
            "value": float(np.mean(by_fold)) if by_fold else None,
            "chance": 0.5 if metric == "auroc" else fraction,
            "detail": {
                "deviation": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
                "n_folds": n_folds,
                "n_folds_undefined": n_folds - len(by_fold),
                "pooled": score(metric, values, predictions.target).value,
            },
        }
    return entries


@dataclass(frozen=True, kw_only=True)
class _HeadTrainer:
    """Trains heads on n labeled variants.

    Attributes:
        store: Embeddings of all variants.
        variants: Index of the labeled variants in the store, shape (n,).
        target: Their classes, 0 or 1, shape (n,).
    """

    store: AlleleStore
    variants: Ints
    target: Labels
    accelerator: Accelerator
    settings: VariantHeadSettings

    def predict(self, kind: HeadKind, test: Bools) -> Floats:
        """Train a head on the variants that are not tested.

        Args:
            kind: Which head.
            test: Which variants are tested, shape (n,).

        Returns:
            Probabilities of the tested variants, shape (tested,).
        """
        import torch
        from torch.nn import functional

        accelerator, settings = self.accelerator, self.settings
        torch.manual_seed(settings.seed)
        training = np.flatnonzero(~test)
        plain = _build(kind, 3 * self.store.width, settings.hidden)
        scale = self._scale(training)
        model, optimizer = accelerator.prepare(
            plain,
            torch.optim.AdamW(plain.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        )
        for epoch in range(settings.epochs):
            order = np.random.default_rng([settings.seed, epoch]).permutation(training)
            for start in range(0, len(order), settings.batch_size):
                batch = order[start : start + settings.batch_size]
                mine = batch[accelerator.process_index :: accelerator.num_processes]
                idle = len(mine) == 0  # takes part in the exchange of gradients all the same
                picked = batch[:1] if idle else mine
                truth = torch.from_numpy(self.target[picked].astype(np.float32)).to(accelerator.device)
                logits = model(self._features(picked, scale))[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
                # processes average their gradients, but the mean over the whole batch is wanted
                accelerator.backward(loss * (0.0 if idle else accelerator.num_processes / len(batch)))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        trained = accelerator.unwrap_model(model).eval()
        tested = np.flatnonzero(test)
        with torch.inference_mode():
            values = [
                trained(self._features(tested[at : at + _READ_VARIANTS], scale))[:, 0].float().sigmoid().cpu().numpy()
                for at in range(0, len(tested), _READ_VARIANTS)
            ]
        return np.concatenate(values)

    def _features(self, index: Ints, scale: _Scale) -> torch.Tensor:
        import torch

        features = (self.store.features(self.variants[index]) - scale.mean) / scale.deviation
        return torch.from_numpy(features).to(self.accelerator.device)

    def _scale(self, index: Ints) -> _Scale:
        n_features = 3 * self.store.width
        total, squares = np.zeros(n_features), np.zeros(n_features)
        for at in range(0, len(index), _READ_VARIANTS):
            features = self.store.features(self.variants[index[at : at + _READ_VARIANTS]]).astype(np.float64)
            total += features.sum(axis=0)
            squares += (features**2).sum(axis=0)
        mean = total / len(index)
        deviation = np.sqrt(np.maximum(squares / len(index) - mean**2, 0.0))
        deviation[deviation < 1e-6 * (1e-6 + np.abs(mean))] = 1.0
        return _Scale(mean=mean.astype(np.float32), deviation=deviation.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Mean and standard deviation of each feature, shape (features,); deviation 1 for a constant feature."""

    mean: Floats
    deviation: NDArray[np.float32]


def _build(kind: HeadKind, width: int, hidden: int) -> nn.Module:
    from torch import nn

    if kind == "linear":
        return nn.Linear(width, 1)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
