"""AUGUSTUS: a trained gene finder, found on PATH, as the expert that BEND compares language models with.

Nothing of the program comes with this package. Each row is one call of the program, which sees the row alone, on both
strands. Calls run on all cores; each is kept below ``$BEND_HF_CACHE``, so that an interrupted run resumes.

An exon, an intron and an exon on the plus strand. The first and the last base of an intron are its splice sites:

>>> calls = [Feature("CDS", 0, 3, "+"), Feature("intron", 3, 7, "+"), Feature("CDS", 7, 8, "+")]
>>> classes_of(calls, 9).tolist()
[0, 0, 0, 1, 2, 2, 3, 0, 8]
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

import numpy as np

from bend_hf.embedders._device import usable_cores
from bend_hf.errors import ControlError
from bend_hf.files import atomic_path, cache_folder, file_sha256, json_sha256
from bend_hf.runs.controls._features import Windows
from bend_hf.runs.controls._linear import of_windows
from bend_hf.runs.controls._spec import ControlResult, ControlSpec, Provenance
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import NucleotideClasses
from bend_hf.tasks.gene_finding import CLASSES
from bend_hf.types import Ints, Json, Labels

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

SPECIES: Final = "human"
ARGUMENTS: Final = (  # every value that matters is stated, because a configuration may change the defaults
    f"--species={SPECIES}",
    "--strand=both",
    "--genemodel=partial",  # a row may begin or end within a gene
    "--UTR=off",
    "--softmasking=0",  # sequences are upper case
    "--stopCodonExcludedFromCDS=true",  # as in the labels, which follow GTF
    "--introns=on",
    "--protein=off",
    "--start=off",
    "--stop=off",
    "--gff3=off",
)
LIMIT_S: Final = 300.0  # per row; rows of 14,000 bp take 1 to 2 s
INSTALL: Final = "install it with 'apt-get install augustus augustus-data' or 'conda install -c bioconda augustus'"
_FIRST_OF_STRAND: Final = {"+": CLASSES.index("cds+"), "-": CLASSES.index("cds-")}
_DONOR, _INTRON, _ACCEPTOR = 1, 2, 3  # of a strand, counted from its coding class
_NON_CODING: Final = CLASSES.index("non_coding")


class Feature(NamedTuple):
    """One exon or intron that was called; 0-based, half-open, in the order of the genome."""

    kind: Literal["CDS", "intron"]
    start: int
    end: int
    strand: Literal["+", "-"]


def features_in(gff: str) -> list[Feature]:
    r"""Read the coding exons and introns of the program's GFF, which counts from 1 and includes the end.

    >>> features_in("s\tAUGUSTUS\tCDS\t4\t6\t.\t-\t0\tx\n# end gene")
    [Feature(kind='CDS', start=3, end=6, strand='-')]

    Raises:
        ControlError: A line is not one of GFF.
    """
    found = []
    for line in gff.splitlines():
        fields = line.split("\t")
        if line.startswith("#") or len(fields) < 3 or fields[2] not in ("CDS", "intron"):
            continue
        if len(fields) < 7 or not (fields[3].isdigit() and fields[4].isdigit()) or fields[6] not in _FIRST_OF_STRAND:
            raise ControlError(
                f"AUGUSTUS wrote {line!r}; expected start, end and strand in the fields 4, 5 and 7 of GFF. "
                "Compare its version with the one that docs/controls.md names."
            )
        if int(fields[3]) > int(fields[4]):
            continue  # an exon that holds nothing but its part of the stop codon
        kind, strand = cast(Literal["CDS", "intron"], fields[2]), cast(Literal["+", "-"], fields[6])
        found.append(Feature(kind, int(fields[3]) - 1, int(fields[4]), strand))
    return found


def classes_of(features: Sequence[Feature], length_bp: int) -> Labels:
    """Return the class of each nucleotide, in the convention of BEND's labels.

    The first base of an intron on the plus strand is its donor, the last one its acceptor; on the minus strand the
    leftmost base is the acceptor. An end of an intron that no exon adjoins is the end of the row, not a splice site.
    Coding wins over introns if two genes overlap. The stop codon is not coding.

    Args:
        features: Exons and introns.
        length_bp: Length of the row.

    Returns:
        Indices of ``CLASSES``, int16, shape (length_bp,).
    """
    if outside := [one for one in features if not 0 <= one.start < one.end <= length_bp]:
        raise ControlError(
            f"AUGUSTUS called {outside[0]} in a row of {length_bp} bp; expected it inside the row. "
            "Delete the folder 'augustus' below $BEND_HF_CACHE, and run again."
        )
    classes: Labels = np.full(length_bp, _NON_CODING, np.int16)
    exons = [one for one in features if one.kind == "CDS"]
    exon_ends = {(one.strand, one.end) for one in exons}
    exon_starts = {(one.strand, one.start) for one in exons}
    for one in features:
        if one.kind != "intron":
            continue
        first = _FIRST_OF_STRAND[one.strand]
        left, right = (_DONOR, _ACCEPTOR) if one.strand == "+" else (_ACCEPTOR, _DONOR)
        classes[one.start : one.end] = first + _INTRON
        if (one.strand, one.start) in exon_ends:
            classes[one.start] = first + left
        if (one.strand, one.end) in exon_starts:
            classes[one.end - 1] = first + right
    for one in exons:
        classes[one.start : one.end] = _FIRST_OF_STRAND[one.strand]
    return classes


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program on this machine.

    Attributes:
        path: Of the executable.
        version: As it states it.
        parameters_sha256: Hash of the species's parameter files.
    """

    path: str
    version: str
    parameters_sha256: str

    @property
    def identity(self) -> dict[str, Json]:
        """What decides the calls, apart from the sequence."""
        return {
            "version": self.version,
            "arguments": list(ARGUMENTS),
            "parameters_sha256": self.parameters_sha256,
        }


def version() -> str | None:
    """Return the version of the program on PATH; None if PATH does not hold it."""
    path = shutil.which("augustus")
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"AUGUSTUS \(([^)]+)\)", done.stdout + done.stderr)
    return found[1] if found else None


def find_program() -> Program:
    """Find the program, and check that it runs and has the parameters of the species.

    Raises:
        ControlError: It is not on PATH, or it does not run.
    """
    path, found = shutil.which("augustus"), version()
    if path is None or found is None:
        raise ControlError(f"the control 'augustus' found no program 'augustus' on PATH; {INSTALL}")
    output = _output(path, "ACGT" * 16, LIMIT_S)
    named = re.search(r"config directory (\S.*?)/? \.\.\.", output)
    folder = Path(named[1]) / "species" / SPECIES if named else None
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder and folder.is_dir() else []
    if not files:
        raise ControlError(
            f"{path} does not say where its parameters of {SPECIES!r} lie; expected a line 'Initializing the "
            f"parameters using config directory'. Set AUGUSTUS_CONFIG_PATH, or {INSTALL}."
        )
    parameters: Json = {file.name: file_sha256(file) for file in files}
    return Program(path=path, version=found, parameters_sha256=json_sha256(parameters))


def parameters() -> str | None:
    """Return the hash of the species's parameter files; None if the program is not on PATH or does not run."""
    try:
        return find_program().parameters_sha256
    except (ControlError, OSError, subprocess.TimeoutExpired):
        return None  # predict says why


def _output(path: str, sequence: str, limit_s: float) -> str:
    """Run the program on one sequence. It loses the start of what it reads from a pipe, so it gets a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".fa", prefix="bend_hf_") as fasta:
        fasta.write(f">row\n{sequence}\n")
        fasta.flush()
        done = subprocess.run(  # noqa: S603
            [path, *ARGUMENTS, fasta.name], capture_output=True, text=True, check=False, timeout=limit_s
        )
    if done.returncode:
        said = " ".join(done.stderr.split()) or "nothing"
        raise ControlError(
            f"{path} ended with status {done.returncode} and said {said!r}; expected 0. "
            f"Run it on a FASTA file of your own, or {INSTALL}."
        )
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What the program called in some rows.

    Attributes:
        classes: Class of each nucleotide, one row after the other, int16.
        without_call: Rows in which it found no coding exon, those over the time limit included.
        over_time: Rows that ran into the time limit.
    """

    classes: Labels
    without_call: int
    over_time: int


def call_genes(sequences: Sequence[str], program: Program, *, limit_s: float = LIMIT_S) -> Calls:
    """Call genes in each row, on all cores.

    A row that was called before with the same sequence, version and parameters is read from the cache. A row over the
    time limit is non-coding throughout, is counted, and is tried again by the next run.

    Args:
        sequences: Upper-case sequences.
        program: The program.
        limit_s: Seconds that the program may take for one row.
    """
    folder = cache_folder("augustus")

    def gff_of(sequence: str) -> str | None:
        key = json_sha256([program.identity, sequence])
        path = folder / key[:2] / f"{key}.gff"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        try:
            output = _output(program.path, sequence, limit_s)
        except subprocess.TimeoutExpired:
            log.warning("augustus: a row of %d bp took over %g s; it has no call", len(sequence), limit_s)
            return None
        lines = [line for line in output.splitlines(keepends=True) if not line.startswith("#")]
        with atomic_path(path) as part:
            part.write_text("".join(lines), encoding="utf-8")
        return "".join(lines)

    pool = ThreadPoolExecutor(max_workers=usable_cores())
    try:
        gffs = list(pool.map(gff_of, sequences))
    finally:
        pool.shutdown(cancel_futures=True)  # rows that wait are not started after an error or Ctrl-C
    called = [features_in(gff or "") for gff in gffs]
    rows = [classes_of(features, len(sequence)) for features, sequence in zip(called, sequences, strict=True)]
    classes: Labels = np.concatenate([np.zeros(0, np.int16), *rows])
    return Calls(
        classes=classes,
        without_call=sum(not any(one.kind == "CDS" for one in features) for features in called),
        over_time=gffs.count(None),
    )


def _predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
    program, test = find_program(), splits["test"]
    windows = Windows(test, task.label, None)
    sequences = [text.upper() for text in test.select_columns(["sequence"])["sequence"]]
    calls = call_genes(sequences, program)
    target = np.concatenate([batch.target for batch in windows.batches()])
    rows: Ints = np.arange(len(test))
    return ControlResult(
        predictions=of_windows(task, test, rows, windows.counts, target, calls.classes),
        learned={
            **program.identity,
            "rows": len(test),
            "rows_without_call": calls.without_call,
            "rows_over_time": calls.over_time,
            "limit_s": LIMIT_S,
        },
    )


def _needs_gene_classes(task: TaskSpec) -> str | None:
    if isinstance(task.label, NucleotideClasses) and task.label.names == CLASSES:
        return None
    return f"the labels of {task.key} are not the parts of a gene, which are all that AUGUSTUS predicts"


CONTROLS = (
    ControlSpec(
        key="augustus",
        title="AUGUSTUS",
        text="A trained gene finder that sees each row alone, on both strands; it learns nothing from the task.",
        why_not=_needs_gene_classes,
        predict=_predict,
        head="none: AUGUSTUS",
        provenance=Provenance(
            version=version,
            content=parameters,
            install=INSTALL,
            source="https://github.com/Gaius-Augustus/Augustus",
            license="Artistic-1.0",
            # species/human/README.TXT of the parameters
            trained_on="1,784 RefSeq genes of hg18, none on chr3 or chr4; genes of the test split may be among them",
        ),
    ),
)
