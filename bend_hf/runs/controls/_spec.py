"""What a control declares, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks import RealValues, TaskSpec
from bend_hf.types import Json

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """What a control predicted on a test split.

    Attributes:
        predictions: Of every item.
        n_features: Features per label window.
        n_parameters: Learned numbers.
        learned: What else the record keeps, such as the number of training windows and the chosen C.
    """

    predictions: Predictions
    n_features: int = 1
    n_parameters: int = 0
    learned: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where something comes from that a control finds on the machine: a program, networks, a data base.

    Attributes:
        version: Returns the installed version; None if it is not installed.
        install: How to get it, as the end of a sentence.
        source: Its home page.
        license: Its license, as SPDX writes it.
        trained_on: What it was trained on or made from, and whether that can hold the test split.
        content: Returns the hash of the files that decide the predictions, which an installation may replace without
            another version; None if they cannot be read. By default the version stands for them.
    """

    version: Callable[[], str | None]
    install: str
    source: str
    license: str
    trained_on: str
    content: Callable[[], str | None] = lambda: None

    def facts(self) -> dict[str, Json]:
        """Return what a record says of it."""
        content = self.content()
        return {
            "version": self.version() or "",
            **({} if content is None else {"content_sha256": content}),
            "source": self.source,
            "license": self.license,
            "trained_on": self.trained_on,
        }


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """One control. It declares either ``predict`` or ``model``.

    Attributes:
        key: Registry key and name in tables.
        title: Name for people.
        text: One sentence that says what it uses.
        why_not: Returns why the control does not apply to a task; None if it does.
        predict: Returns predictions of the test split, given a task, its splits and a seed.
        head: What is learned, as a record names it; for controls with ``predict``.
        search: What ``predict`` chooses on the validation split, as a record holds it.
        model: Returns the configuration of the model that is the control, given that of the compared model; None if
            that model has no such control.
        provenance: What it needs on the machine; None if nothing. Such a control is run if it is asked for.
    """

    key: str
    title: str
    text: str
    why_not: Callable[[TaskSpec], str | None]
    predict: Callable[[TaskSpec, dict[str, Dataset], int], ControlResult] | None = None
    head: str = ""
    search: Mapping[str, Json] = field(default_factory=dict)
    model: Callable[[RunConfig], RunConfig | None] | None = None
    provenance: Provenance | None = None

    def why_absent(self) -> str | None:
        """Say that what it needs is not installed, and how to get it; None if it can run."""
        if self.provenance is None or self.provenance.version() is not None:
            return None
        return f"what the control {self.key!r} needs is not installed; {self.provenance.install}"


def always(task: TaskSpec) -> str | None:
    """Apply a control to every task."""
    return None


def needs_classes(task: TaskSpec) -> str | None:
    """Apply a control to tasks whose labels are classes."""
    if not isinstance(task.label, RealValues):
        return None
    return f"the labels of {task.key} are real values, and it predicts classes"


def needs_training(task: TaskSpec) -> str | None:
    """Apply a control to tasks with a training split and classes."""
    if task.variant is None:
        return needs_classes(task)
    return f"{task.key} is scored without training, so there is nothing to learn it from"
