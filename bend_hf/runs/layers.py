"""Score every layer of a model on a task, from one forward pass per sequence and one read per batch.

    sweeps = run_layers(RunConfig(task=("cpg_methylation",), model="dnabert6"), "every-4")
    print(sweeps[0].curve.in_words())

Each layer gives an ordinary result record, that of ``bend-hf train --layer``, which also says that it was tried with
others. ``evaluation.layer_choice`` chooses the layer.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bend_hf.embedders.layers import check_choice_of_layers, layer_view, mixed_view, usable_layers
from bend_hf.errors import ConfigError
from bend_hf.evaluation.layer_choice import LayerCurve, choose, curves_of, layers_entry, validation_of
from bend_hf.lease import Watch
from bend_hf.runs.outcome import Outcome, RunResults
from bend_hf.runs.run import (
    ModelRun,
    PreparedTask,
    claimed_run,
    compute,
    model_run,
    name_of_run,
    open_embedder,
    prepare,
    run_controls_of,
    write_run,
)
from bend_hf.runs.train_layers import state_folder, train_layers
from bend_hf.training.layer_mix import MixedLayers, MixKind, check_mixes

if TYPE_CHECKING:
    from bend_hf.config import RunConfig
    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LayerSweep:
    """All layers of one model on one task.

    Attributes:
        outcomes: The record of each layer and seed.
        curve: Validation and test score of each layer.
    """

    outcomes: tuple[Outcome, ...]
    curve: LayerCurve


def run_layers(
    config: RunConfig, layers: str = "all", embedder: Embedder | None = None, *, mixes: Sequence[MixKind] = ()
) -> list[LayerSweep]:
    """Train and test a head on every layer of a model that is asked for, for each task and seed of a configuration.

    A layer that was run before with the same layers is not run again, unless the configuration forces it.

    Args:
        config: The configuration; its ``layer`` must be left out.
        layers: ``all``, ``every-4`` or numbers such as ``0,6,12``; see ``embedders.layers.chosen_layers``.
        embedder: A loaded model, which the configuration only names; None opens the one that it names.
        mixes: Heads that read all these layers at once, ``mean`` or ``scalar``; see ``training.layer_mix``.

    Raises:
        BendError: An input is bad, or the model has no such layers. Nothing was trained in that case.
    """
    check_choice_of_layers(layers)
    check_mixes(mixes)
    _check_config(config)
    tasks = prepare(config, is_object=embedder is not None)
    for task in tasks:
        if task.data.task.head is None:
            raise ConfigError(
                f"{task.data.task.key} is scored without training, so it has no validation split to choose a layer on; "
                "leave it out"
            )
    embedder = open_embedder(config) if embedder is None else embedder
    tried = usable_layers(embedder, layers)
    watch = Watch()
    found: dict[str, list[Outcome]] = {}
    for task in tasks:
        found.setdefault(task.data.task.key, []).extend(_sweep(task, embedder, tried, watch))
        mixed = (_mixed(task, embedder, MixedLayers(kind=kind, layers=tried), watch) for kind in dict.fromkeys(mixes))
        found[task.data.task.key].extend(mixed)
    sweeps = []
    for outcomes in found.values():
        curves = curves_of([outcome.record for outcome in outcomes])
        sweeps.append(LayerSweep(outcomes=tuple(outcomes), curve=curves[0]))
    return sweeps


def _check_config(config: RunConfig) -> None:
    """Check the flags that a sweep gives another meaning.

    Raises:
        ConfigError: One of them is set.
    """
    if config.layer != -1:
        raise ConfigError(f"--layer is {config.layer!r}, but all layers of --layers are scored; leave it out")
    if config.tune != "head":
        raise ConfigError(
            f"--tune is {config.tune!r}, but layers are compared by heads on frozen embeddings; leave it out"
        )
    if config.shots:
        raise ConfigError(
            f"--shots is {','.join(config.shots)}, but layers are compared by heads on the whole training split; leave "
            "it out, and train heads on few rows of the chosen layer with 'bend-hf train --layer'"
        )
    if config.shots:
        raise ConfigError(
            f"--shots is {', '.join(config.shots)}, but layers are compared on the whole training split; leave it out, "
            "and give it to 'bend-hf train --layer' with the chosen layer"
        )
    if config.strand_report:
        raise ConfigError(
            "--strand-report predicts a second time with one head, but layers are compared by many; leave it out, and "
            "give it to 'bend-hf train --layer' with the chosen layer"
        )
    if config.decode != "argmax":
        raise ConfigError(
            f"--decode is {config.decode!r}, but layers are compared without decoding; leave it out, and decode the "
            "chosen layer with 'bend-hf train --layer'"
        )


def _sweep(task: PreparedTask, embedder: Embedder, tried: Sequence[int], watch: Watch) -> list[Outcome]:
    """Run the layers of one task and seed that have no record; the records of the others are read."""
    runs = {
        layer: model_run(replace(task, config=replace(task.config, layer=layer)), layer_view(embedder, layer))
        for layer in tried
    }
    with ExitStack() as claims:
        outcomes: dict[int, Outcome] = {}
        for layer, run in runs.items():
            earlier = claims.enter_context(claimed_run(run, watch, wait=True))
            if isinstance(earlier, Outcome) and (earlier.record.layers or {}).get("tried") == list(tried):
                outcomes[layer] = earlier
        missing = {layer: run for layer, run in runs.items() if layer not in outcomes}
        if outcomes:
            log.info("%s: %d of %d layers were there", task.data.task.key, len(outcomes), len(tried))
        if missing:
            outcomes |= _compute(task, missing, embedder, tried, outcomes)
    return [outcomes[layer] for layer in tried]


def _compute(
    task: PreparedTask,
    runs: Mapping[int, ModelRun],
    embedder: Embedder,
    tried: Sequence[int],
    earlier: Mapping[int, Outcome],
) -> dict[int, Outcome]:
    """Compute the layers together, then write their records. The record of the chosen layer shows the controls."""
    first = next(iter(runs.values()))
    started, name = time.perf_counter(), name_of_run(first)
    results = train_layers(runs, embedder, tried, name)
    controls: list[Outcome] = []
    chosen = _chosen(results, earlier)
    if task.config.controls and chosen is not None and chosen in runs:
        controls = run_controls_of(replace(task, config=runs[chosen].config))
    written = {
        layer: write_run(run, results[layer], name, started=started, controls=controls if layer == chosen else ())
        for layer, run in runs.items()
    }
    first.accelerator.wait_for_everyone()
    if first.accelerator.is_main_process:
        shutil.rmtree(state_folder(runs), ignore_errors=True)
    return written


def _mixed(task: PreparedTask, embedder: Embedder, mix: MixedLayers, watch: Watch) -> Outcome:
    """Run a head that reads several layers at once. Its weights are not kept, as no single layer gives its input."""
    config = replace(task.config, layer=mix.name, keep="none", controls=False)
    view = mixed_view(embedder, mix.layers, mix.name)
    run = replace(model_run(replace(task, config=config), view), mix=mix)
    with claimed_run(run, watch, wait=True) as earlier:
        if isinstance(earlier, Outcome):
            return earlier
        started, name = time.perf_counter(), name_of_run(run)
        results = compute(run, name)
        validation = validation_of({"runs": [dict(fold.training or {}) for fold in results.folds]})
        entry = layers_entry(mix.layers, validation, results.predictions, run.data.task.metric)
        outcome = write_run(run, replace(results, layers=entry), name, started=started)
        run.accelerator.wait_for_everyone()
        return outcome


def _chosen(results: Mapping[int, RunResults], earlier: Mapping[int, Outcome]) -> int | None:
    entries = {layer: one.layers for layer, one in results.items()}
    entries |= {layer: one.record.layers for layer, one in earlier.items()}
    values = {layer: (entry or {}).get("validation") for layer, entry in entries.items()}
    return choose({layer: value if isinstance(value, float) else None for layer, value in values.items()})
