"""The supervised side: a small probe on the rows of both alleles, trained in folds that share no sequence.

    scored = score_variants(source, embedder, spec, names, accelerator, ScoreSettings(keep_rows=True), parts=parts)
    probed = probe(scored, parts, accelerator)
    probed.detail["linear"]["auroc"]["value"]

Reported beside the zero-shot scores, never in their place. The features are [REF, ALT, ALT - REF] at the variant,
scaled to mean 0 and deviation 1 by the training folds. Every variant is predicted by the one probe that saw neither
it nor a neighbour; the number of epochs is fixed, so nothing is chosen on what is tested.

Splits variants into folds that share no sequence: by chromosome, or by blocks of position on a single one.

>>> fold_by_place(["chr1", "chr2", "chr1"], np.array([5, 5, 9]), n_folds=5, apart_bp=100).fold.tolist()
[0, 1, 0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import jsonable
from bend_hf.types import Floats, Ints, Json
from bend_hf.variants.allele_store import AlleleStore
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.score import Scored
from bend_hf.variants.summary import METRICS, labelled

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

FoldsBy: TypeAlias = Literal["chromosome", "blocks of position"]


@dataclass(frozen=True, kw_only=True)
class PlaceFolds:
    """The fold of each variant, counted from 0, shape (n,), and what they were made of."""

    fold: Ints
    by: FoldsBy
    n_folds: int


def fold_by_place(chromosome: Sequence[str] | pa.Array, start_bp: Ints, *, n_folds: int, apart_bp: int) -> PlaceFolds:
    """The folds of some variants.

    Whole chromosomes, the largest first, each to the fold that has least so far; all variants of one chromosome in
    blocks of neighbouring positions, which are only cut where the gap is wide enough.

    Args:
        chromosome: Of each variant, length n.
        start_bp: Position of each, shape (n,).
        n_folds: Folds wanted; there are fewer where there are fewer chromosomes or gaps.
        apart_bp: How far apart two variants must be for a cut between them: the length of a sequence that is shown.

    Raises:
        ConfigError: Less than two folds can be made.
    """
    names = pa.array(chromosome, pa.string()) if not isinstance(chromosome, pa.Array) else chromosome
    encoded = names.cast(pa.string()).dictionary_encode()
    code = encoded.indices.to_numpy().astype(np.int64)
    if len(encoded.dictionary) > 1:
        return _by_chromosome(code, n_folds)
    return _by_blocks(start_bp, n_folds, apart_bp)


def _by_chromosome(code: Ints, n_folds: int) -> PlaceFolds:
    counts = np.bincount(code)
    n = min(n_folds, len(counts))
    load = np.zeros(n, np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for chromosome in np.argsort(-counts, kind="stable").tolist():
        fold_of[chromosome] = load.argmin()
        load[fold_of[chromosome]] += counts[chromosome]
    return PlaceFolds(fold=fold_of[code], by="chromosome", n_folds=n)


def _by_blocks(start_bp: Ints, n_folds: int, apart_bp: int) -> PlaceFolds:
    order = np.argsort(start_bp, kind="stable")
    ranked = start_bp[order]
    group = np.concatenate([[0], np.cumsum(np.diff(ranked) >= apart_bp)])
    size = np.bincount(group)
    middle = np.cumsum(size) - size / 2
    wanted = np.minimum((middle * n_folds / len(ranked)).astype(np.int64), n_folds - 1)
    if len(size) < 2:
        raise ConfigError(
            f"the {len(start_bp)} variants stand on one chromosome without a gap of {apart_bp} bp to cut at; a probe "
            "needs two folds that share no sequence, so give more variants or leave the probe out"
        )
    if wanted[0] == wanted[-1]:  # one group has nearly all of them: cut once, as near to the middle as can be
        wanted = np.arange(len(size)) > np.abs(np.cumsum(size)[:-1] - len(ranked) / 2).argmin()
    block = np.unique(wanted, return_inverse=True)[1]
    fold = np.empty(len(start_bp), np.int64)
    fold[order] = block[group]
    return PlaceFolds(fold=fold, by="blocks of position", n_folds=int(block[-1]) + 1)


ProbeKind: TypeAlias = Literal["linear", "mlp"]
PROBES: Final[tuple[ProbeKind, ...]] = get_args(ProbeKind)
_READ_ROWS: Final = 4096


@dataclass(frozen=True, kw_only=True)
class VariantHeadSettings:
    """How probes are trained; own choices, as BEND trains none.

    Attributes:
        n_folds: Folds, as far as there are chromosomes or gaps.
        apart_bp: Width of a gap that parts two folds: the longest sequence that a model is shown.
        hidden: Width of the hidden layer of ``mlp``.
        epochs: Passes over the training folds.
        batch_size: Variants a step, over all processes.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        seed: Of weights and shuffling.
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
    """What the probes said.

    Attributes:
        detail: For a record: each metric of each probe as the mean over folds, how folds were made, the settings.
        predictions: Of each probe, for every labelled variant, with its fold beside.
    """

    detail: dict[str, Json]
    predictions: dict[str, Predictions]


def probe(
    scored: Scored,
    parts: ScoringCheckpoint,
    accelerator: Accelerator,
    settings: VariantHeadSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VariantHeadResult:
    """Trains and tests a linear and a small probe.

    Args:
        scored: Of ``score_variants`` with ``keep_rows``.
        parts: Where its pieces are.
        accelerator: Device and processes.
        settings: How.
        progress: Told the trainings done, and how many there are.

    Raises:
        ConfigError: There are too few labelled variants, or they cannot be parted.
    """
    settings = settings or VariantHeadSettings()
    rows = AlleleStore.gather(parts, scored.keys, scored.predictions.item, write=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    chosen = np.flatnonzero(labelled(scored.predictions) & rows.has_rows)
    target = scored.predictions.target[chosen]
    if len(np.unique(target)) < 2:
        raise ConfigError(
            f"{len(chosen)} labelled variants of {len(np.unique(target))} class train no probe; leave it out"
        )
    columns = {name: column.take(pa.array(chosen)) for name, column in scored.predictions.columns.items()}
    folds = fold_by_place(
        columns["chromosome"], columns["start"].to_numpy(), n_folds=settings.n_folds, apart_bp=settings.apart_bp
    )
    found: dict[str, Predictions] = {}
    for number, kind in enumerate(PROBES):
        values = np.empty(len(chosen), np.float32)
        for fold in range(folds.n_folds):
            test = folds.fold == fold
            values[test] = _train(kind, rows, chosen, target, test, accelerator, settings)
            progress(number * folds.n_folds + fold + 1, len(PROBES) * folds.n_folds)
        found[kind] = replace(
            scored.predictions,
            item=scored.predictions.item[chosen],
            windows=np.arange(len(chosen) + 1),
            target=target,
            score=values,
            columns={
                **{name: columns[name] for name in ("chromosome", "start", "end", "ref", "alt")},
                "fold": pa.array(folds.fold + 1),
            },
        )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        rows.remove()
    detail: dict[str, Json] = {kind: _metrics(found[kind], folds) for kind in PROBES}
    detail["folds"] = {"by": folds.by, "n": folds.n_folds, "variants": jsonable(np.bincount(folds.fold))}
    detail["settings"] = jsonable(asdict(settings))
    return VariantHeadResult(detail=detail, predictions=found)


def _metrics(predictions: Predictions, folds: PlaceFolds) -> Json:
    """Each metric as the mean over folds that have both classes, and over all variants at once."""
    assert predictions.score is not None
    entries: dict[str, Json] = {"n": len(predictions)}
    for metric in METRICS:
        by_fold = []
        for fold in range(folds.n_folds):
            test = folds.fold == fold
            if len(np.unique(predictions.target[test])) == 2:
                by_fold.append(score(metric, predictions.score[test], predictions.target[test]).value)
        share = float((predictions.target == 1).mean())
        entries[metric] = {
            "value": float(np.mean(by_fold)) if by_fold else None,
            "chance": 0.5 if metric == "auroc" else share,
            "detail": {
                "deviation": float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else None,
                "n_folds": folds.n_folds,
                "n_folds_undefined": folds.n_folds - len(by_fold),
                "pooled": score(metric, predictions.score, predictions.target).value,
            },
        }
    return entries


def _train(
    kind: ProbeKind,
    rows: AlleleStore,
    chosen: Ints,
    target: NDArray[np.int16],
    test: NDArray[np.bool_],
    accelerator: Accelerator,
    settings: VariantHeadSettings,
) -> Floats:
    """Trains on what is not tested; probabilities of the tested variants, shape (tested,)."""
    import torch
    from torch.nn import functional

    torch.manual_seed(settings.seed)
    learn = np.flatnonzero(~test)
    plain = _build(kind, 3 * rows.width, settings.hidden)
    mean, deviation = _moments(rows, chosen[learn])
    model, optimizer = accelerator.prepare(
        plain,
        torch.optim.AdamW(plain.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
    )

    def scaled(variants: Ints) -> torch.Tensor:
        features = (rows.features(chosen[variants]) - mean) / deviation
        return torch.from_numpy(features).to(accelerator.device)

    for epoch in range(settings.epochs):
        order = np.random.default_rng([settings.seed, epoch]).permutation(learn)
        for start in range(0, len(order), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            mine = batch[accelerator.process_index :: accelerator.num_processes]
            idle = len(mine) == 0  # takes part in the exchange all the same
            picked = batch[:1] if idle else mine
            truth = torch.from_numpy(target[picked].astype(np.float32)).to(accelerator.device)
            loss = functional.binary_cross_entropy_with_logits(model(scaled(picked))[:, 0], truth, reduction="sum")
            # processes average their gradients; the mean over the whole batch is wanted
            accelerator.backward(loss * (0.0 if idle else accelerator.num_processes / len(batch)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    trained = accelerator.unwrap_model(model).eval()
    places = np.flatnonzero(test)
    with torch.inference_mode():
        values = [
            trained(scaled(places[at : at + _READ_ROWS]))[:, 0].float().sigmoid().cpu().numpy()
            for at in range(0, len(places), _READ_ROWS)
        ]
    accelerator.free_memory(model, optimizer)
    return np.concatenate(values)


def _build(kind: ProbeKind, width: int, hidden: int) -> nn.Module:
    from torch import nn

    if kind == "linear":
        return nn.Linear(width, 1)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def _moments(rows: AlleleStore, variants: Ints) -> tuple[Floats, Floats]:
    """Mean and deviation of each feature, float32; 1 for a feature that never changes."""
    total = np.zeros(3 * rows.width)
    squares = np.zeros(3 * rows.width)
    for at in range(0, len(variants), _READ_ROWS):
        features = rows.features(variants[at : at + _READ_ROWS]).astype(np.float64)
        total += features.sum(axis=0)
        squares += (features**2).sum(axis=0)
    mean = total / len(variants)
    deviation = np.sqrt(np.maximum(squares / len(variants) - mean**2, 0.0))
    deviation[deviation < 1e-6 * (1e-6 + np.abs(mean))] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)
