"""A model and some of its controls on several tasks: what the demo and the card of bend-mini show.

for outcome in compare_with_controls(RunConfig(task=("gene_finding",), data="sample"), ("kmer", "random_twin")):
    print(outcome.control or "the model", outcome.record.value)
"""

from __future__ import annotations

from collections.abc import Sequence

from bend_hf.config import RunConfig
from bend_hf.runs.outcome import Outcome
from bend_hf.runs.run import controls_of, model_run, open_embedder, prepare, run_task


def compare_with_controls(config: RunConfig, controls: Sequence[str]) -> list[Outcome]:
    """Run the controls that fit each task, then the model.

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
        found += [*outcomes, run_task(model_run(task, embedder), outcomes)]
    return found
