"""Which flags have no effect on a model or a task: they are refused, or logged if others in the same run have it.

>>> lacking_of_model("onehot")["weights"]
'has no weights'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bend_hf.config import ComputeFlags, ModelFlags, Needs, RunConfig, check_flags_apply, given_without_effect
from bend_hf.registry import names_file
from bend_hf.tasks import NucleotideClasses, TaskSpec
from bend_hf.tasks.gene_finding import CLASSES
from bend_hf.training.heads import BASELINES


def lacking_of_model(model: str, checkpoint: str | None = None) -> dict[Needs, str]:
    """Return what a model lacks that a flag may need, with the reason; the model is not loaded.

    Args:
        model: As the user names it.
        checkpoint: Weights to use instead of the declared ones.
    """
    from bend_hf.embedders import declared_model

    if model in BASELINES:
        return {
            "weights": "is trained from scratch",
            "revision": "is trained from scratch",
            "context": "takes sequences of any length",
            "offload": "is trained as a whole",
            "cache": "reads one-hot nucleotides, which are never cached",
        }
    spec = declared_model(model)
    if spec is None and names_file(model):
        own = "is your own code"
        return {"weights": own, "revision": own, "context": own, "offload": own}
    lacking: dict[Needs, str] = {}
    if spec is not None and spec.source == "none":
        lacking |= {"weights": "has no weights", "checkpoint": "has no weights", "cache": "is never cached"}
    if spec is not None and not spec.offloads:
        lacking["offload"] = "has no blocks that can be offloaded"
    if spec is not None and spec.context_tokens is None:
        lacking["context"] = "has no limit of tokens"
    source = checkpoint or (model if spec is None else spec.checkpoint if spec.source == "hub" else "")
    if not source or Path(source).expanduser().exists():
        lacking["revision"] = "is not read from the Hub"
    return lacking


def lacking_of_task(task: TaskSpec) -> dict[Needs, str]:
    """Return what a task lacks that a flag may need, with the reason."""
    lacking: dict[Needs, str] = {} if has_genes(task) else {"genes": "has no genes to decode"}
    if task.variant is None:
        lacking["scores"] = "scores no variants"
    if task.head is None:
        lacking |= {"training": "is scored without training", "cache": "caches no embeddings"}
    return lacking


def has_genes(task: TaskSpec) -> bool:
    """Return whether the labels of a task are the nine classes of gene finding, which a grammar can decode."""
    return isinstance(task.label, NucleotideClasses) and task.label_names == CLASSES


def check_model_flags(config: ModelFlags, one_of: Sequence[ModelFlags] = ()) -> None:
    """Check that the flags that were given have an effect on the model, or on one of several.

    Args:
        config: The configuration, as it was given.
        one_of: The configuration of each model; by default that of the configuration.

    Raises:
        ConfigError: A flag has no effect on any of them.
    """
    named = one_of or (config,)
    check_flags_apply(config, {one.model: lacking_of_model(one.model, one.checkpoint) for one in named})


def check_compute_flags(given: ComputeFlags, model: str, checkpoint: str | None = None) -> None:
    """Check that flags of speed have an effect on a model, for commands without other flags of a model.

    Args:
        given: The flags.
        model: As the user or a trained head names it.
        checkpoint: Weights to use instead of the declared ones.

    Raises:
        ConfigError: A flag has no effect.
    """
    check_flags_apply(given, {model: lacking_of_model(model, checkpoint)})


def check_task_flags(config: RunConfig, tasks: Sequence[TaskSpec]) -> None:
    """Check that the flags that were given have an effect on a task of a run.

    Raises:
        ConfigError: A flag has no effect on any of them.
    """
    check_flags_apply(config, {task.key: lacking_of_task(task) for task in tasks})


def with_effect(config: RunConfig, *lacking: Mapping[Needs, str]) -> RunConfig:
    """Return a configuration with the flags at their default that have no effect, so that records do not differ."""
    unused = {name: default for lacks in lacking for name, default in given_without_effect(config, lacks).items()}
    return replace(config, **unused)  # type: ignore[arg-type]  # names and defaults of its own fields
