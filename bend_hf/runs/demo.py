"""What the demo runs: how heads are trained on the bundled sample, and a model with its controls on one task.

for outcome in compare_with_controls(demo_config(task, settings), ("kmer", "random_twin")):
    print(outcome.control or "the model", outcome.record.value)

``compare_in_folder`` is what a process of the demo does: the same, with the datasets in the demo's own folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bend_hf.config import ComputeFlags, RunConfig
from bend_hf.lease import Watch
from bend_hf.runs.outcome import Outcome
from bend_hf.runs.run import claimed_run, controls_of, model_run, open_embedder, prepare, run_task
from bend_hf.tasks import BinClasses, NucleotideClasses, TaskSpec


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a head is trained on the sample, and on how much of it.

    The head is linear: it needs few rows, and it reads only the means of label windows, which are quick to store.
    BEND's batches of 64 genes would be one step per epoch.

    Attributes:
        epochs: Passes over the training split. The best one is chosen on the validation split.
        batch_size: Small enough for some hundred steps.
        learning_rate: Of AdamW.
        limit: Items of each split; None for all.
        quick_limit: The same for a quick look.
        cost: Seconds of a core for bend-mini and its controls, roughly; the longest task starts first.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    limit: int | None = None
    quick_limit: int
    cost: float


# Chosen on the validation split of the sample.
GENES: Final = Recipe(epochs=6, batch_size=2, learning_rate=0.008, quick_limit=10, cost=44)
# As in `make report-chr20`, with smaller batches for fewer rows.
WINDOWS: Final = Recipe(epochs=15, batch_size=16, learning_rate=0.01, quick_limit=60, cost=17)
# One of the four windows of 100 kb in each of the ten subsets: four would take minutes. Chosen on validation splits.
LONG_WINDOWS: Final = Recipe(epochs=7, batch_size=1, learning_rate=0.03, limit=1, quick_limit=1, cost=55)
# Matched pairs, spread evenly over the 400 of each task: both alleles of all of them would take a minute more.
VARIANTS: Final = Recipe(limit=120, quick_limit=60, cost=10)

QUICK: Final = ("cpg_methylation", "variant_effects_disease")  # one that is trained and one that is not


def recipe_of(task: TaskSpec) -> Recipe:
    """Return how a task of the sample is run in the demo.

    >>> from bend_hf.tasks import TASKS
    >>> recipe_of(TASKS.get("gene_finding")).epochs
    6
    """
    match task.label:
        case _ if task.head is None:
            return VARIANTS
        case NucleotideClasses():
            return GENES
        case BinClasses():
            return LONG_WINDOWS
        case _:
            return WINDOWS


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a user chooses.

    Attributes:
        model: Key of the model.
        out: Folder of the result records.
        cache: Folder of the embeddings.
        seed: Seed of heads and random weights.
        epochs: Epochs instead of those of the recipes.
        quick: Take fewer items, and leave out what takes long.
        compute: Where and how fast the model computes.
    """

    model: str
    out: Path
    cache: Path
    seed: int = 0
    epochs: int | None = None
    quick: bool = False
    compute: ComputeFlags = ComputeFlags()


def demo_config(task: TaskSpec, settings: DemoSettings) -> RunConfig | None:
    """Return the configuration of a task in the demo; None if it is left out."""
    recipe = recipe_of(task)
    if settings.quick and task.key not in QUICK:
        return None
    limit = recipe.quick_limit if settings.quick else recipe.limit
    is_trained = task.head is not None
    return RunConfig(
        task=(task.key,),
        data="sample",
        model=settings.model,
        head="linear" if is_trained else None,
        epochs=settings.epochs or recipe.epochs if is_trained else None,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        limit=limit,
        out=settings.out,
        cache=settings.cache if is_trained else None,
        no_averages=not is_trained,  # BEND's score needs the embeddings at the variant alone
        seed=settings.seed,
        keep="none" if is_trained else None,
        controls=True,
        device=settings.compute.device,
        batch_tokens=settings.compute.batch_tokens,
        compile=settings.compute.compile,
    )


def compare_with_controls(config: RunConfig, controls: Sequence[str]) -> list[Outcome]:
    """Run the controls that fit each task, then the model. Finished runs are read, so that a demo resumes.

    Args:
        config: Configuration of the model.
        controls: Keys of the controls.

    Raises:
        BendError: An input is bad. Nothing was trained in that case.
    """
    tasks = prepare(config)
    embedder = open_embedder(config)
    found = []
    for task in tasks:
        outcomes = [run_task(control) for control in controls_of(task, controls, with_model=True)]
        of_model = model_run(task, embedder)
        with claimed_run(of_model, Watch(), wait=True) as earlier:
            outcome = earlier if isinstance(earlier, Outcome) else run_task(of_model, outcomes)
        found += [*outcomes, outcome]
    return found


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """One task of the demo, for a process.

    Attributes:
        config: From ``demo_config``.
        controls: Keys of the controls.
        datasets: Folder that ``datasets`` builds in, instead of its cache in the home folder.
    """

    config: RunConfig
    controls: Sequence[str]
    datasets: Path


def compare_in_folder(task: DemoTask) -> list[Outcome]:
    """Run a task of the demo; see ``compare_with_controls``."""
    with datasets_below(task.datasets):
        return compare_with_controls(task.config, task.controls)


@contextlib.contextmanager
def datasets_below(folder: Path) -> Iterator[None]:
    """Let ``datasets`` build in a folder, and not in its cache in the home folder."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder.absolute()
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before
