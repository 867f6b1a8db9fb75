"""What a task declares: where its labels come from, how it is split, which head learns it, what counts.

For whoever adds a task: one file in this package with a tuple ``TASKS`` of these.

>>> TaskSpec.__dataclass_fields__["window_bp"].type
'int | None'
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from bend_hf.tasks._labels import LabelKind

HeadSetting: TypeAlias = "bool | int | float | str | None"


@dataclass(frozen=True, init=False, repr=False)
class Head:
    """A head as plain data: its key and the settings that differ from the head's defaults.

    ``bend_hf.training.heads`` holds the heads, checks the settings and builds the module.

    >>> Head("cnn", hidden=64, pool_bp=512)
    Head('cnn', hidden=64, pool_bp=512)

    Args:
        key: Key of the head in the registry ``bend_hf.training.heads.HEADS``.
        settings: Keyword arguments of the head, such as ``pool_bp``, the nucleotides averaged into one label window.
    """

    key: str
    items: tuple[tuple[str, HeadSetting], ...]

    def __init__(self, key: str, **settings: HeadSetting) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "items", tuple(sorted(settings.items())))

    @property
    def settings(self) -> dict[str, HeadSetting]:
        """The settings by name."""
        return dict(self.items)

    def __repr__(self) -> str:
        arguments = [repr(self.key), *(f"{name}={value!r}" for name, value in self.items)]
        return f"Head({', '.join(arguments)})"


@dataclass(frozen=True, kw_only=True)
class NamedSplits:
    """The bed's ``split`` column says train, valid or test."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """The bed's ``split`` column names ``n`` parts; fold k tests on part k, validates on part k + 1."""

    n: int = 10


@dataclass(frozen=True, kw_only=True)
class Unsplit:
    """Nothing is trained: every row is scored."""


Partition: TypeAlias = NamedSplits | Folds | Unsplit


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """How a head is trained on a task, as in the task's file below ``conf/supervised_tasks`` of BEND."""

    loss: Literal["cross_entropy", "bce", "mse", "poisson"]
    batch_size: int
    learning_rate: float
    epochs: int = 100  # BEND conf/supervised_tasks/*.yaml, params.epochs
    weight_decay: float = 0.01  # BEND conf/supervised_tasks/*.yaml, optimizer.weight_decay
    positive_weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """How much sequence a variant task looks at, in nucleotides.

    Attributes:
        context_bp: On each side of the variant in what an embedder sees.
        causal_context_bp: On the left for causal models, whose embedding ends at the variant.
        stored_context_bp: On each side in the published data, enough for both.
    """

    context_bp: int = 256  # BEND scripts/predict_variant_effects.py, extra_context_left and _right
    causal_context_bp: int = 512  # BEND scripts/run_variant_effects.sh, causal models
    stored_context_bp: int = 512


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A publication, enough of it to find and to cite."""

    authors: str
    title: str
    venue: str
    year: int
    doi: str


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task.

    Attributes:
        key: Registry key, command-line name and name of its bed.
        group: Folder and Hub repository it lies in.
        config: Its configuration there; None where the repository holds this task alone.
        assembly: Genome build that its coordinates speak of.
        window_bp: Length of every sequence, or None where lengths differ.
        label: Kind and names of its labels.
        stranded: Whether minus rows are read as their reverse complement.
        head: Head that BEND trains on frozen embeddings; None where nothing is trained.
        training: How; None where nothing is trained.
        variant: How variants are shown to a model; None for other tasks.
        metric: Main metric.
        further_metrics: What else is reported.
        license: Of the label source, as its authors state it.
    """

    key: str
    group: str
    config: str | None = None
    title: str
    description: str
    assembly: Literal["GRCh37", "GRCh38", "unknown"]
    window_bp: int | None
    label: LabelKind
    stranded: bool
    partition: Partition
    head: Head | None
    training: TrainingSpec | None
    variant: VariantSpec | None = None
    metric: str
    further_metrics: tuple[str, ...] = ()
    citations: tuple[Citation, ...]
    license: str

    @property
    def metrics(self) -> tuple[str, ...]:
        """The main metric, then the others."""
        return (self.metric, *self.further_metrics)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels in index order."""
        return self.label.names

    def with_label_names(self, names: tuple[str, ...]) -> TaskSpec:
        """The same task with other labels, as a ``.labels.txt`` beside a bed gives them."""
        return replace(self, label=replace(self.label, names=names))


BEND = Citation(
    authors="Marin, F. I., Teufel, F., Horlacher, M., Madsen, D., Pultz, D., Winther, O., Boomsma, W.",
    title="BEND: Benchmarking DNA Language Models on Biologically Meaningful Tasks",
    venue="ICLR",
    year=2024,
    doi="10.48550/arXiv.2311.12570",
)
ENCODE = Citation(
    authors="ENCODE Project Consortium",
    title="An integrated encyclopedia of DNA elements in the human genome",
    venue="Nature 489",
    year=2012,
    doi="10.1038/nature11247",
)
