"""Find the files of a task: the bundled sample, a folder, files named one by one, or a dataset of the Hub.

Every command uses it, so that ``--data --bed --labels --genome`` mean the same everywhere. It looks at names and does
not read the files, apart from the column names of a user's own BED file.

>>> find_source(select_tasks(["gene_finding"])[0], data="sample").origin
'sample'
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from bend_hf.config import DataConfig, Needs, check_flags_apply
from bend_hf.data.bed import column_names
from bend_hf.data.vcf import is_vcf
from bend_hf.errors import ConfigError, RecordError, SourceError, nearest
from bend_hf.files import asset_folder, utf8
from bend_hf.tasks import TASKS, Citation, TaskSpec, select_tasks
from bend_hf.tasks._labels import BinClasses, NucleotideClasses, RealValues
from bend_hf.tasks._spec import BEND
from bend_hf.types import ValueLoss

Origin: TypeAlias = Literal["sample", "folder", "files", "hub", "built"]

DATA_VARIABLE: Final = "BEND_DATA_DIR"
HUB_NAMESPACE: Final = "bend"
NAMESPACE_VARIABLE: Final = "BEND_HF_NAMESPACE"
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")  # what the Hub allows
_OWN_DATA: Final = "the user's own data"
_NOT_PUBLISHED: Final = {  # license of labels that are not those of the task's sources, by origin
    "files": _OWN_DATA,
    "sample": "as the card of the bundled sample says; the labels are made by bend_hf",
}
_GIVE_DATA: Final = "pass --data FOLDER, or --bed BED and --genome FASTA"
_HDF5_ENDINGS: Final = (".hdf5", ".h5")
_COMPRESSED: Final = (".gz", ".bgz")
_FASTA_ENDINGS: Final = (".fa", ".fasta", ".fna", ".fa.gz", ".fasta.gz", ".fna.gz", ".fa.bgz", ".fasta.bgz", ".fna.bgz")


@dataclass(frozen=True, kw_only=True)
class TaskFiles:
    """The input files of one task, found but not yet read.

    Attributes:
        task: The declaration; None if it is inferred from the files.
        key: Name of the task.
        bed: BED file of coordinates.
        hdf5: Labels that are not a column of the BED file.
        label_names: The ``.labels.txt`` next to the BED file, if there is one.
        genome: FASTA file of the reference genome.
        origin: Kind of place that the files come from.
        loss: Loss of real-valued labels, for a task without a declaration; None reads classes.
    """

    task: TaskSpec | None
    key: str
    bed: Path
    hdf5: Path | None
    label_names: Path | None
    genome: Path
    origin: Origin
    loss: ValueLoss | None = None


@dataclass(frozen=True, kw_only=True)
class BuiltSource:
    """A task that is already a dataset: a repository of the Hub, or a folder that has the same layout.

    Attributes:
        task: The declaration.
        repo: Repository or folder for ``load_dataset``.
        origin: ``hub`` or ``built``.
    """

    task: TaskSpec
    repo: str
    origin: Origin


Source: TypeAlias = TaskFiles | BuiltSource


@dataclass(frozen=True, kw_only=True)
class FoundData:
    """The value of ``--data`` that is used for a task, and a sentence for the user that says so."""

    data: str
    message: str


def default_data(task: TaskSpec) -> FoundData:
    """Choose the data folder of a task if none is named.

    That is ``$BEND_DATA_DIR``, otherwise ``./data``, if it holds the task; otherwise the bundled sample.

    Raises:
        SourceError: ``$BEND_DATA_DIR`` is set but is not a folder, or neither place nor the sample holds the task.
    """
    named = os.environ.get(DATA_VARIABLE)
    if named and not Path(named).is_dir():
        raise SourceError(
            f"${DATA_VARIABLE} is {named!r}, which is not a folder; set it to BEND's data folder or unset it"
        )
    folder = Path(named) if named else Path("data")
    if _bed_in(folder, task) or _is_built(folder, task):
        return FoundData(data=str(folder), message=f"{task.key}: data from the folder {folder}")
    looked = f"${DATA_VARIABLE} ({named})" if named else "./data"
    if not _bed_in(asset_folder("sample"), task):
        raise SourceError(f"neither {looked} nor the bundled sample holds {task.key}; {_GIVE_DATA}")
    return FoundData(
        data="sample",
        message=(
            f"{task.key}: NOT BEND's DATA. {looked} does not hold this task, so the bundled sample is used. Its labels "
            "are stand-ins, and its scores say nothing about BEND. Pass --data FOLDER or --data hub for the real task"
        ),
    )


def sample_tasks() -> list[TaskSpec]:
    """List the registered tasks that the bundled sample holds."""
    return [task for task in TASKS if _bed_in(asset_folder("sample"), task)]


def tasks_in(folder: Path) -> tuple[Path, list[TaskSpec]]:
    """Find the registered tasks that a folder holds: a data folder, or the folder of one built dataset.

    Returns:
        The folder to give as ``--data``, and the tasks.

    Raises:
        SourceError: The folder holds no task.
    """
    tasks = [task for task in TASKS if _bed_in(folder, task) or _is_built(folder, task)]
    if tasks:
        return folder, tasks
    built = [task for task in TASKS if task.group == folder.resolve().name and _is_built(folder.resolve().parent, task)]
    if built:
        return folder.resolve().parent, built
    raise SourceError(f"{folder} holds no BED file of a task and no dataset of 'bend-hf build'; {_GIVE_DATA}")


def default_namespace() -> str:
    """Return the user or organization on the Hub whose datasets are meant: ``$BEND_HF_NAMESPACE``, otherwise ``bend``.

    Raises:
        ConfigError: The variable holds no name that the Hub allows.
    """
    name = os.environ.get(NAMESPACE_VARIABLE) or HUB_NAMESPACE
    if not _NAMESPACE.fullmatch(name):
        raise ConfigError(f"${NAMESPACE_VARIABLE} is {name!r}, which is not the name of a user or organization")
    return name


def hub_namespace(data: str) -> str | None:
    """Return the namespace on the Hub that a value of ``--data`` names; None if it names something else.

    >>> hub_namespace("hub:someone"), hub_namespace("sample")
    ('someone', None)

    Raises:
        ConfigError: It is not a name that the Hub allows.
    """
    kind, colon, name = data.partition(":")
    if kind != "hub":
        return None
    if not colon:
        return default_namespace()
    if not _NAMESPACE.fullmatch(name):
        raise ConfigError(
            f"--data {data!r}: {name!r} is not the name of a user or organization; expected hub:NAMESPACE"
        )
    return name


def find_source(
    task: TaskSpec,
    *,
    data: str,
    bed: Path | None = None,
    labels: Path | None = None,
    genome: Path | None = None,
) -> Source:
    """Find the files of a task.

    Args:
        task: The task.
        data: ``sample``, ``hub``, ``hub:NAMESPACE``, a folder in BEND's layout (or flat), or a folder that
            ``bend-hf build`` wrote.
        bed: BED file to use instead of the folder's.
        labels: HDF5 file to use instead of the folder's.
        genome: FASTA file to use instead of the folder's.

    Raises:
        SourceError: A file is missing; the message says where it was expected.
    """
    namespace = hub_namespace(data)
    if namespace is not None:
        return BuiltSource(task=task, repo=f"{namespace}/{task.group}", origin="hub")
    folder = asset_folder("sample") if data == "sample" else Path(data)
    if not folder.is_dir():
        near = nearest(data, ("sample", "hub"))
        raise SourceError(
            f"--data {data!r} is not a folder; "
            + (f"did you mean {near!r}? Or " if near else "")
            + f"pass 'sample', 'hub', 'hub:NAMESPACE' or a folder with {task.group}/{task.key}.bed"
        )
    if bed is None and _is_built(folder, task):
        return BuiltSource(task=task, repo=str(folder / task.group), origin="built")
    found = bed or _bed_in(folder, task)
    if found is None:
        raise SourceError(_missing_bed(folder, task, in_sample=data == "sample"))
    hdf5 = labels
    if hdf5 is None and isinstance(task.label, NucleotideClasses | BinClasses):
        hdf5 = labels_next_to(found) or found.with_name(_stems(found)[0] + _HDF5_ENDINGS[0])
    return TaskFiles(
        task=task,
        key=task.key,
        bed=_existing(found),
        hdf5=_existing(hdf5) if hdf5 else None,
        label_names=_names_next_to(found),
        genome=_existing(genome) if genome else find_genome(folder, task),
        origin="sample" if data == "sample" and bed is None else "folder" if bed is None else "files",
    )


def user_source(bed: Path, *, labels: Path | None, genome: Path | None, data: str | None = None) -> TaskFiles:
    """Find the files of a task without a declaration, given as ``--bed --labels --genome``.

    Raises:
        SourceError: A file is missing, or no genome is given.
    """
    if genome is None and data is None:
        raise SourceError(f"{bed} needs a genome to read its sequences from; pass --genome FASTA")
    hdf5 = labels or labels_next_to(bed)
    return TaskFiles(
        task=None,
        key=key_of(bed),
        bed=_existing(bed),
        hdf5=_existing(hdf5) if hdf5 else None,
        label_names=_names_next_to(bed),
        genome=_existing(genome) if genome else find_genome(Path(str(data)), None),
        origin="files",
    )


def key_of(file: Path) -> str:
    """Return the name of a task that is known by its file: what stands before the first dot.

    Raises:
        SourceError: Nothing stands there.
    """
    key = utf8(file.name.split(".")[0])
    if not key.strip():
        raise SourceError(f"{file} has no name before its ending; rename the file, for example to my_task{file.suffix}")
    return key


def find_genome(folder: Path, task: TaskSpec | None) -> Path:
    """Find the reference genome of a data folder, in ``genomes/`` or next to the BED files.

    If there are several, the name of the task's assembly chooses.

    Raises:
        SourceError: There is no FASTA file, or several and not exactly one is named for the assembly.
    """
    places = [folder / "genomes", folder]
    for place in places:
        found = sorted(p for p in place.glob("*") if p.is_file() and p.name.lower().endswith(_FASTA_ENDINGS))
        named = [p for p in found if task is not None and task.assembly.lower() in p.name.lower()]
        if len(named) == 1 or len(found) == 1:
            return (named or found)[0]
        if found:
            raise SourceError(
                f"{place} holds {len(found)} genomes ({', '.join(p.name for p in found[:5])}), and "
                f"{len(named)} of them named for {task.assembly if task else 'no assembly'}; choose one with --genome"
            )
    raise SourceError(
        f"no reference genome (*.fa, *.fa.gz) in {places[0]} or {places[1]}; pass --genome FASTA"
        + (f" ({task.assembly})" if task else "")
    )


def sources_of(config: DataConfig) -> list[tuple[Source, str]]:
    """Find the data of each task of a configuration, and a sentence for the user that says where they are.

    Raises:
        BendError: A task is unknown, or its files do not exist.
    """
    if config.bed is not None and not config.task:
        source = user_source(config.bed, labels=config.labels, genome=config.genome, data=config.data)
        source = replace(source, loss=config.loss)
        check_flags_apply(config, {source.key: _lacking(source)})
        return [(source, f"{source.key}: your own task from {config.bed}")]
    found: list[tuple[Source, str]] = []
    for task in map(partial(_with_loss, loss=config.loss), select_tasks(config.task)):
        place = _place(task, config)
        source_of_task = find_source(task, data=place.data, bed=config.bed, labels=config.labels, genome=config.genome)
        found.append((source_of_task, place.message))
    check_flags_apply(
        config, {task.key: _lacking(one) for task, (one, _) in zip(select_tasks(config.task), found, strict=True)}
    )
    return found


def _with_loss(task: TaskSpec, loss: ValueLoss | None) -> TaskSpec:
    """Return a task of real values with the loss of ``--loss``."""
    if loss is None:
        return task
    if task.training is None or not isinstance(task.label, RealValues):
        raise ConfigError(
            f"--loss {loss} is for real-valued labels, but {task.key} has classes; leave it out, or leave --task out "
            "and pass --bed, whose column 'label' holds the values"
        )
    return replace(task, training=replace(task.training, loss=loss))


def _lacking(source: Source) -> dict[Needs, str]:
    """Return what the data of a task lack that a flag may need, with the reason."""
    if isinstance(source, BuiltSource):
        return dict.fromkeys(("intervals", "variants"), "is read from a built dataset, whose rows are fixed")
    if source.task.variant is not None if source.task is not None else _has_variants(source.bed):
        return {"intervals": "has variants, and those past the end of a contig are always an error"}
    return {"variants": "has no variants"}


def _has_variants(bed: Path) -> bool:
    """Whether a file of the user's own holds variants."""
    return is_vcf(bed) or {"ref", "alt"} <= set(column_names(bed))


def _place(task: TaskSpec, config: DataConfig) -> FoundData:
    if config.data is not None:
        return FoundData(data=config.data, message=f"{task.key}: data from {config.data}")
    if config.bed is not None and config.genome is not None:
        return FoundData(data=str(config.bed.parent), message=f"{task.key}: data from {config.bed}")
    return default_data(task)


def _bed_in(folder: Path, task: TaskSpec) -> Path | None:
    for name in (f"{task.key}.bed", f"{task.key}.bed.gz"):
        for candidate in (folder / task.group / name, folder / name):
            if candidate.is_file():
                return candidate
    return None


def _missing_bed(folder: Path, task: TaskSpec, *, in_sample: bool) -> str:
    if in_sample:
        return f"the bundled sample does not hold {task.key}; {_GIVE_DATA}"
    message = f"{task.key}: neither {folder / task.group / task.key}.bed nor {folder / task.key}.bed exists; "
    if BEND in task.citations:
        return message + f"run 'bend-hf download {task.key} --data-dir {folder}' to fetch BEND's files"
    return message + _GIVE_DATA


def _is_built(folder: Path, task: TaskSpec) -> bool:
    repo = folder / task.group
    return (repo / "README.md").is_file() and any(repo.glob("**/*.parquet"))


def labels_next_to(bed: Path) -> Path | None:
    """Return the HDF5 file of labels next to a BED file: of the same name, or of what stands before its first dot."""
    return _next_to(bed, _HDF5_ENDINGS)


def _names_next_to(bed: Path) -> Path | None:
    return _next_to(bed, (".labels.txt",))


def _next_to(bed: Path, endings: tuple[str, ...]) -> Path | None:
    named = (bed.with_name(stem + ending) for stem in _stems(bed) for ending in endings)
    return next((path for path in named if path.is_file()), None)


def _stems(bed: Path) -> tuple[str, ...]:
    """Return the names of a BED file without its ending, the longest first.

    >>> _stems(Path("genes.v2.bed.gz"))
    ('genes.v2', 'genes.v2.bed', 'genes')
    """
    plain = bed.with_suffix("") if bed.suffix.lower() in _COMPRESSED else bed
    return tuple(dict.fromkeys([plain.stem, bed.stem, bed.name.split(".")[0]]))


def _existing(path: Path) -> Path:
    if utf8(str(path)) != str(path):
        raise SourceError(
            f"the path {utf8(str(path))} is not UTF-8, which a record must hold; rename the file or folder"
        )
    if not path.is_file():
        raise SourceError(f"{path} does not exist; check the path, or run 'bend-hf download' for BEND's files")
    return path


_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class DatasetRef:
    """A dataset repository at a commit.

    Raises:
        RecordError: The name is not ``owner/name``, or the revision is not a full commit.
    """

    repo: str
    revision: str

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise RecordError(f"dataset id {self.repo!r}; expected owner/name, as on the Hub")
        if not _COMMIT.fullmatch(self.revision):
            raise RecordError(f"revision {self.revision!r} of {self.repo}; expected a commit of 40 hexadecimal digits")


def label_license(task: TaskSpec | None, origin: str) -> str:
    """The license of labels: that of the task's sources, and nothing of them for a user's files and the sample."""
    return _NOT_PUBLISHED.get(origin, task.license if task else _OWN_DATA)


def label_citations(task: TaskSpec | None, origin: str) -> tuple[Citation, ...]:
    """BEND and the sources of the labels, without those of a user's files and of the sample."""
    return (BEND,) if task is None or origin in _NOT_PUBLISHED else task.citations
