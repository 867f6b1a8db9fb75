"""What a task declares: labels, splits, head, training settings and metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from bend_hf.tasks._labels import LabelKind, MultiLabel, RealValues

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
    """The ``split`` column of the BED file says train, valid (or validation) or test."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """The ``split`` column of the BED file names ``n`` subsets; fold k tests on subset k and validates on the next."""

    n: int = 10


@dataclass(frozen=True, kw_only=True)
class Unsplit:
    """Nothing is trained, and every row is scored."""


Partition: TypeAlias = NamedSplits | Folds | Unsplit


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """How a head is trained on a task; the defaults are BEND's.

    Attributes:
        batch_size: Sequences per optimizer step.
        positive_weight: Weight of positive labels in a binary loss; None for 1.
    """

    loss: Literal["cross_entropy", "bce", "mse", "poisson"]
    batch_size: int
    learning_rate: float
    epochs: int = 100  # BEND conf/supervised_tasks/*.yaml, params.epochs
    weight_decay: float = 0.01  # BEND conf/supervised_tasks/*.yaml, optimizer.weight_decay
    positive_weight: float | None = None


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """How much sequence around a variant is used.

    Attributes:
        context_bp: Nucleotides on each side of the variant that an embedder sees.
        causal_context_bp: Nucleotides to the left for causal models, whose embedding ends at the variant.
        stored_context_bp: Nucleotides on each side in the dataset, enough for both.
    """

    context_bp: int = 256  # BEND scripts/predict_variant_effects.py, extra_context_left and _right
    causal_context_bp: int = 512  # BEND scripts/run_variant_effects.sh, causal models
    stored_context_bp: int = 512


_NOT_IN_BIBTEX: Final = str.maketrans(dict.fromkeys('{}\\`"\n\r', " ") | {sign: f"\\{sign}" for sign in "&%#_$"})

_SEPARATOR: Final = " and "


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A publication.

    Attributes:
        authors: ``Last, F. M., Last, F.``, and ``et al.`` at the end of a list that is cut; or a consortium.
        venue: Journal, with its volume; or a conference.
        conference: Full name of the conference; empty for an article in a journal.
    """

    authors: str
    title: str
    venue: str
    year: int
    doi: str
    conference: str = ""

    @property
    def key(self) -> str:
        """The BibTeX key: first author, year and first word of the title."""
        words = [word for word in re.findall("[a-z0-9]+", self.title.lower()) if word not in ("a", "an", "the")]
        author = "".join(re.findall("[a-z0-9]+", self.authors.partition(",")[0].lower()))
        return f"{author}{self.year}{words[0] if words else ''}"

    def bibtex(self) -> str:
        """Write the publication as BibTeX.

        >>> print(Citation(authors="Zhou, J., et al.", title="A title", venue="Cell 7", year=2015, doi="1/x").bibtex())
        @article{zhou2015title,
          author = "Zhou, J. and others",
          title = "{A title}",
          journal = "Cell",
          volume = "7",
          year = "2015",
          doi = "1/x"
        }
        """
        found = re.fullmatch(r"(?P<journal>.*?)(?: (?P<volume>\d+))?(?: \((?P<number>\w+)\))?", self.venue)
        parts = found.groupdict() if found else {"journal": self.venue}
        names = re.split(r"(?<=\.), ", self.authors)
        where = {"booktitle": self.conference} if self.conference else parts
        values = {"author": _SEPARATOR.join(names), "title": self.title, **where, "year": str(self.year)}
        values = {name: value.translate(_NOT_IN_BIBTEX) for name, value in values.items() if value}
        authors = [one if "," in one or one == "et al." else f"{{{one}}}" for one in values["author"].split(_SEPARATOR)]
        values["author"] = _SEPARATOR.join("others" if one == "et al." else one for one in authors)
        values["title"] = f"{{{values['title']}}}"  # the braces keep its capitals
        values["doi"] = re.sub(r"[^\w./()<>;:-]", "", self.doi)
        lines = ",\n".join(f'  {name} = "{value}"' for name, value in values.items())
        return f"@{'inproceedings' if self.conference else 'article'}{{{self.key},\n{lines}\n}}"


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task.

    Attributes:
        key: Registry key, command-line name and name of the BED file.
        group: Folder and Hub repository that contain the task.
        config: Configuration in the repository; None if the task is alone there.
        assembly: Genome assembly of the coordinates.
        window_bp: Length of every sequence; None if lengths differ.
        label: Kind and names of the labels.
        stranded: Whether rows of the minus strand are read as their reverse complement.
        head: Default head on frozen embeddings; None if nothing is trained.
        training: Training settings of the head; None if nothing is trained.
        variant: Context of variants; None for other tasks.
        metric: Main metric.
        further_metrics: Other reported metrics.
        license: License of the label source, as its authors state it.
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
        """All metrics, the main one first."""
        return (self.metric, *self.further_metrics)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in index order."""
        return self.label.names

    @property
    def n_outputs(self) -> int:
        """How many numbers a head gives per window: one for a yes-or-no bin, otherwise one per class or label."""
        if isinstance(self.label, MultiLabel | RealValues):
            return len(self.label_names)
        binary = self.training is not None and self.training.loss == "bce"
        return 1 if binary else len(self.label_names)

    def with_label_names(self, names: tuple[str, ...]) -> TaskSpec:
        """Return the task with other label names, such as those of a ``.labels.txt`` next to a BED file."""
        return replace(self, label=replace(self.label, names=names))


BEND = Citation(
    authors="Marin, F. I., Teufel, F., Horlacher, M., Madsen, D., Pultz, D., Winther, O., Boomsma, W.",
    title="BEND: Benchmarking DNA Language Models on Biologically Meaningful Tasks",
    venue="ICLR",
    year=2024,
    doi="10.48550/arXiv.2311.12570",
    conference="The Twelfth International Conference on Learning Representations",
)
VEP = Citation(  # of the consequences of variants, where they are in the data
    authors="McLaren, W., et al.",
    title="The Ensembl Variant Effect Predictor",
    venue="Genome Biology 17",
    year=2016,
    doi="10.1186/s13059-016-0974-4",
)
ENCODE = Citation(
    authors="ENCODE Project Consortium",
    title="An integrated encyclopedia of DNA elements in the human genome",
    venue="Nature 489",
    year=2012,
    doi="10.1038/nature11247",
)
