"""Train heads on few rows: for each number of shots and each seed a head, all of one number together.

The rows of n shots and the head's first weights depend on the seed. The epoch is chosen on as many rows of the
validation split, drawn in the same way, so a point of the curve never sees more labels than it says. The embeddings are
those of the full training. Heads of one number of shots read them together; all heads read the test split together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.config import ALL_SHOTS
from bend_hf.data.shots import ShotRows, rows_sha256, seeds_of_shots, unit_of
from bend_hf.evaluation.predictions import Predictions, concatenate, read_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member
from bend_hf.evaluation.shots import SHOTS, FewHeads, ShotHeads
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.runs.shot_curve import against_controls, point_of
from bend_hf.training.recipe import Trial
from bend_hf.types import Ints, Json

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from torch import Tensor, nn

    from bend_hf.runs.controls._spec import ControlSpec
    from bend_hf.runs.run import Run
    from bend_hf.tasks import TaskSpec
    from bend_hf.tasks._labels import LabelKind
    from bend_hf.tasks._spec import Head
    from bend_hf.training.batches import Inputs, InputSource, Split
    from bend_hf.training.head_trainer import FitConfig, Fitted
    from bend_hf.training.losses import Loss
    from bend_hf.training.stacked import StackedHeads

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FewShotTraining:
    """How the heads of a curve are trained on one fold.

    Attributes:
        label: Kind of the labels.
        splits: Training, validation and test split with their embeddings.
        loss: The loss.
        trials: The heads and rates that the protocol searches.
        build: Makes a head with the first weights of a seed.
        config_of: Returns rates, batches and epochs, given a trial, a seed and the number of rows.
        score: Returns the main metric of predictions; None if it is not defined.
        batch_size: Items per forward pass.
        accelerator: Device and processes.
        checkpoints: Folder of the training state.
    """

    label: LabelKind
    splits: Mapping[str, Split]
    loss: Loss
    trials: Sequence[Trial]
    build: Callable[[Head, int], nn.Module]
    config_of: Callable[[Trial, int, int], FitConfig]
    score: Callable[[Predictions], float | None]
    batch_size: int
    accelerator: Accelerator
    checkpoints: Path


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The trial of one seed that was best on its validation rows."""

    trial: Trial
    fitted: Fitted


@dataclass(frozen=True)
class PickedRows:
    """Some items of a source of embeddings."""

    source: InputSource
    chosen: Ints

    def rows(self, rows: Ints) -> Inputs:
        """Return the inputs of some of the items."""
        return self.source.rows(self.chosen[rows])


@dataclass
class _Draws:
    """Rows of a split by seed, drawn once."""

    dataset: Dataset
    kind: LabelKind
    of_seed: dict[int, ShotRows] = field(default_factory=dict)

    def rows(self, shots: str, seed: int) -> Ints:
        """Return the rows of a number of shots."""
        if seed not in self.of_seed:
            self.of_seed[seed] = ShotRows.of(self.dataset, self.kind, seed)
        return self.of_seed[seed].rows(shots)


def train_few(training: FewShotTraining, shots: Sequence[str]) -> FewHeads:
    """Train the heads of each number of shots, and predict the test split with all of them.

    Args:
        training: How they are trained.
        shots: Numbers of shots; ``all`` is the full training, which is left out here.
    """
    train, validation = (_Draws(training.splits[name].dataset, training.label) for name in ("train", "validation"))
    chosen: dict[tuple[str, int], _Chosen] = {}
    facts: dict[str, dict[str, Json]] = {}
    for n in numbers_to_try(shots, train.dataset, training.label):
        seeds = seeds_of_shots(n)
        rows = {seed: train.rows(n, seed) for seed in seeds}
        judged = {seed: validation.rows(n, seed) for seed in seeds}
        found = _train_together(training, n, rows, judged)
        chosen |= {(n, seed): one for seed, one in found.items()}
        facts[n] = {
            **facts_of(train.dataset, list(rows.values())),
            "validation_rows": max(map(len, judged.values())),
            "steps": max(one.fitted.steps_per_epoch * len(one.fitted.history) for one in found.values()),
            "best_epochs": [one.fitted.best_epoch for one in found.values()],
            "chosen": [jsonable(dict(one.trial.chosen)) for one in found.values()],
        }
    return FewHeads(predictions=_predicted(training, chosen), facts=facts)


def numbers_to_try(shots: Sequence[str], train: Dataset, kind: LabelKind) -> list[str]:
    """Return the numbers of shots that leave out some row; the log names the others."""
    found = []
    order = ShotRows.of(train, kind, 0) if any(one != ALL_SHOTS for one in shots) else None
    for one in shots:
        if one == ALL_SHOTS or order is None:
            continue
        if len(order.rows(one)) == len(train):
            log.info("%s shots are all %d rows of the training split; 'all' stands for them", one, len(train))
        else:
            found.append(one)
    return found


def facts_of(train: Dataset, rows: Sequence[Ints]) -> dict[str, Json]:
    """Return how many rows the subsets of a number of shots hold, and the hash of each."""
    return {"rows": max(map(len, rows)), "subsets": [rows_sha256(train, one) for one in rows]}


def _train_together(
    training: FewShotTraining, shots: str, rows: Mapping[int, Ints], judged: Mapping[int, Ints]
) -> dict[int, _Chosen]:
    """Train the heads of all seeds with one number of shots; trials with heads of one shape go together."""
    from bend_hf.training.checkpoints import Checkpoints, random_states
    from bend_hf.training.progress import Bar
    from bend_hf.training.stacked import (
        StackedCallbacks,
        StackedData,
        StackedHeads,
        StackedMember,
        fit_stacked,
    )

    best: dict[int, _Chosen] = {}
    accelerator = training.accelerator
    validate_with = _Validation.of(training, judged)
    for number, head in enumerate(dict.fromkeys(trial.head for trial in training.trials)):
        trials = [trial for trial in training.trials if trial.head == head]
        members, seeds = [], []
        for seed, own in rows.items():
            for trial in trials:
                module = training.build(head, seed)
                members.append(
                    StackedMember(
                        name=f"{shots} shots, seed {seed}",
                        head=module,
                        train=training.splits["train"],
                        config=training.config_of(trial, seed, len(own)),
                        rows=own,
                        random=random_states(),
                    )
                )
                seeds.append((seed, trial))
        stacked = StackedHeads(
            [one.head for one in members],
            batched=_batched(head),
            random=[one.random for one in members if one.random is not None],
        )
        member_seeds = [seed for seed, _ in seeds]

        def validate(heads: StackedHeads, ending: Sequence[int], of: list[int] = member_seeds) -> list[float | None]:
            return validate_with(heads, ending, [of[place] for place in ending])

        folder = training.checkpoints / f"shots{shots}" / f"head{number}"
        with Bar(accelerator, f"{shots} shots", unit="step") as bar:
            fitted = fit_stacked(
                stacked,
                members,
                StackedData(loss=training.loss, validate=validate),
                accelerator,
                checkpoints=Checkpoints(folder, writes=accelerator.is_main_process),
                callbacks=StackedCallbacks(on_progress=bar.with_loss),
            )
        for (seed, trial), one in zip(seeds, fitted, strict=True):
            value = -math.inf if one.best is None else one.best
            before = best.get(seed)
            if before is None or value > (-math.inf if before.fitted.best is None else before.fitted.best):
                best[seed] = _Chosen(trial=trial, fitted=one)
    return best


def _batched(head: Head) -> Callable[..., Tensor] | None:
    from bend_hf.training.heads import HEADS

    return HEADS.get(head.key).batched


@dataclass(frozen=True, kw_only=True)
class _Validation:
    """Scores heads on the validation rows of their seeds, which are read together."""

    training: FewShotTraining
    split: Split
    items: Mapping[int, Ints]

    @classmethod
    def of(cls, training: FewShotTraining, judged: Mapping[int, Ints]) -> _Validation:
        from bend_hf.embedders.token_embeddings import Targets
        from bend_hf.training.batches import Split

        whole = training.splits["validation"]
        union = np.unique(np.concatenate(list(judged.values())))
        dataset = whole.dataset.select(union)
        split = Split(
            dataset=dataset, embeddings=PickedRows(whole.embeddings, union), targets=Targets(dataset, training.label)
        )
        item = dataset.select_columns(["item"]).with_format("arrow")[:]["item"].to_numpy()
        return cls(
            training=training,
            split=split,
            items={seed: item[np.searchsorted(union, rows)] for seed, rows in judged.items()},
        )

    def __call__(self, heads: StackedHeads, ending: Sequence[int], seeds: Sequence[int]) -> list[float | None]:
        from bend_hf.training.stacked import predict_stacked

        found = predict_stacked(
            heads,
            [self.split] * len(ending),
            self.training.accelerator,
            batch_size=self.training.batch_size,
            values_of=self.training.loss.predict,
            members=ending,
        )
        return [
            self.training.score(one.take(np.flatnonzero(np.isin(one.item, self.items[seed]))))
            for one, seed in zip(found, seeds, strict=True)
        ]


def _predicted(
    training: FewShotTraining, chosen: Mapping[tuple[str, int], _Chosen]
) -> dict[str, dict[int, Predictions]]:
    """Predict the test split with every head, from one read for all heads of one shape."""
    from bend_hf.training.stacked import StackedHeads, predict_stacked

    predictions: dict[str, dict[int, Predictions]] = {}
    for head in dict.fromkeys(one.trial.head for one in chosen.values()):
        keys = [key for key, one in chosen.items() if one.trial.head == head]
        stacked = StackedHeads([training.build(head, seed) for _, seed in keys], batched=_batched(head))
        stacked.load([chosen[key].fitted.state for key in keys])
        stacked.to(training.accelerator.device)
        found = predict_stacked(
            stacked,
            [training.splits["test"]] * len(keys),
            training.accelerator,
            batch_size=training.batch_size,
            values_of=training.loss.predict,
        )
        for (shots, seed), one in zip(keys, found, strict=True):
            predictions.setdefault(shots, {})[seed] = one
    return {shots: dict(sorted(predictions[shots].items())) for shots in sorted(predictions, key=int)}


def few_of_control(control: ControlSpec, task: TaskSpec, splits: dict[str, Dataset], shots: Sequence[str]) -> FewHeads:
    """Fit a control on the same rows, and predict the test split.

    Args:
        control: A control that predicts without a model.
        task: The task.
        splits: Its datasets.
        shots: Numbers of shots.
    """
    train, validation = (_Draws(splits[name], task.label) for name in ("train", "validation"))
    predictions: dict[str, dict[int, Predictions]] = {}
    facts: dict[str, dict[str, Json]] = {}
    for n in numbers_to_try(shots, splits["train"], task.label):
        rows = {seed: train.rows(n, seed) for seed in seeds_of_shots(n)}
        predictions[n] = {}
        for seed, own in rows.items():
            judged = validation.rows(n, seed)
            few = {"train": splits["train"].select(own), "validation": splits["validation"].select(judged)}
            if control.predict is not None:
                predictions[n][seed] = control.predict(task, {**splits, **few}, seed).predictions
        facts[n] = facts_of(splits["train"], list(rows.values()))
    return FewHeads(predictions=predictions, facts=facts)


def heads_of_folds(full: Predictions, folds: Sequence[tuple[int | None, FewHeads]]) -> ShotHeads:
    """Join the heads of all folds: one set of predictions for each number of shots and seed.

    Args:
        full: Predictions of the full training, over all folds.
        folds: Number and heads of each fold.
    """
    first = folds[0][1].predictions
    joined: dict[str, dict[int, Predictions]] = {}
    for shots in first:
        if any(shots not in few.predictions for _, few in folds):
            continue  # all rows of a smaller fold
        joined[shots] = {
            seed: concatenate([with_fold(few.predictions[shots][seed], fold) for fold, few in folds])
            for seed in first[shots]
        }
    return ShotHeads(full=full, few=joined)


def shots_entry(run: Run, heads: ShotHeads, folds: Sequence[FewHeads], n_rows: int) -> dict[str, Json]:
    """Return what a record says of a curve, besides the comparison with controls.

    Args:
        run: The run.
        heads: Predictions of all heads.
        folds: What is known of the trainings of each fold.
        n_rows: Rows of the full training.
    """
    task, config = run.data.task, run.config
    points: list[Json] = []
    for shots, seeds in heads.few.items():
        facts = [one.facts[shots] for one in folds]
        merged = dict(facts[0])
        merged["subsets"] = [hash for one in facts for hash in _list(one["subsets"])]
        points.append({**point_of(shots, seeds, task.metric), **merged})
    if ALL_SHOTS in config.shots:
        points.append({**point_of(ALL_SHOTS, {config.seed: heads.full}, task.metric), "rows": n_rows})
    return {"asked": list(config.shots), "unit": unit_of(task.label), "metric": task.metric, "points": points}


def with_controls(entry: Mapping[str, Json], heads: ShotHeads, controls: Mapping[str, ShotHeads]) -> dict[str, Json]:
    """Add the comparison with the best control of each number of shots."""
    found = against_controls(heads, controls, str(entry["metric"])) if controls else None
    return {**entry, "against_controls": found}


def shot_heads_next_to(record: ResultRecord, path: Path) -> ShotHeads | None:
    """Read the predictions of a record's curve from the file next to it; None if there are none."""
    file = path.with_name(str(member(record.predictions, "further", SHOTS, "file")))
    return ShotHeads.of(read_predictions(file)) if record.shots is not None and file.is_file() else None


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
