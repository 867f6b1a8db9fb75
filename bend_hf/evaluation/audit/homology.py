"""Find homologs of tested rows with mmseqs2 or minimap2, if one of them is installed.

The audit's own comparison (``copies.py``) finds copies without gaps. An aligner also finds relatives with insertions
and deletions. What it finds is reported next to the leaks and is not part of them, so that the leak-free part does not
depend on what a machine has installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._device import usable_cores
from bend_hf.errors import BendError, ConfigError
from bend_hf.evaluation.audit.kmers import Sequences
from bend_hf.evaluation.audit.rows import AuditRows
from bend_hf.types import Bools, Ints, Json

Homology: TypeAlias = Literal["auto", "mmseqs", "minimap2", "off"]

IDENTITY: Final = 0.8  # as seqleak (doi.org/10.5281/zenodo.23605245) and the splits of BEND's gene finding
COVERAGE: Final = 0.5  # share of the tested row; as seqleak
_MAX_EVALUE: Final = "1e-5"
_HITS: Final = 50  # kept per row
_LETTERS: Final = np.frombuffer(b"ACGTN", np.uint8)
_WRITTEN_ROWS: Final = 4096  # at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """H alignments of tested rows with other rows.

    Attributes:
        row: The tested row, shape (H,).
        other: The row that it is aligned with, shape (H,).
        identity: Share of equal letters in the alignment, shape (H,).
        coverage: Share of the tested row that is aligned, shape (H,).
    """

    row: Ints
    other: Ints
    identity: NDArray[np.float64]
    coverage: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Homologs:
    """What an aligner found for each of R rows.

    Attributes:
        tool: Name and version of the aligner.
        found: Whether the row has a homolog in a split that it is tested against, shape (R,).
        identity: Highest identity of such a homolog, 0 for a row without homologs, shape (R,).
    """

    tool: str
    found: Bools
    identity: NDArray[np.float64]

    def as_json(self, rows: AuditRows, leaks: Bools) -> dict[str, Json]:
        """The summary, as an audit stores it.

        Args:
            rows: The rows.
            leaks: Whether each row was found without an aligner, shape (R,).
        """
        splits: dict[str, Json] = {}
        for number, name in enumerate(rows.split_names):
            mine = rows.split == number
            if rows.references[number].any() and mine.any():
                splits[name] = {
                    "rows": int(self.found[mine].sum()),
                    "share": float(self.found[mine].mean()),
                    "not_among_leaks": int((self.found & ~leaks)[mine].sum()),
                }
        return {"tool": self.tool, "identity": IDENTITY, "coverage": COVERAGE, "splits": splits}


def find_homologs(rows: AuditRows, tool: Homology = "auto", *, threads: int | None = None) -> Homologs | str:
    """Align the tested rows with the rows of the splits that they are tested against, on both strands.

    Args:
        rows: The rows.
        tool: The aligner; ``auto`` takes the first that is installed.
        threads: Number of threads; None takes one per processor.

    Returns:
        The homologs; or the reason, in words, why none were looked for.

    Raises:
        ConfigError: The named aligner is not installed.
        BendError: The aligner failed.
    """
    if tool == "off":
        return "it was turned off"
    names = tuple(_ALIGNERS) if tool == "auto" else (tool,)
    name = next((one for one in names if shutil.which(one) is not None), None)
    if name is None and tool != "auto":
        raise ConfigError(f"--homology {tool}: no program {tool!r} is on the PATH; install it, or use --homology auto")
    if name is None:
        return f"none of {', '.join(names)} is installed"
    tested: Bools = np.any(rows.references, axis=1)[rows.split]
    reference: Bools = np.any(rows.references, axis=0)[rows.split]
    if not tested.any():
        return "the task has no splits to compare"
    with tempfile.TemporaryDirectory(prefix="bend_hf_homology_") as folder:
        query, target = Path(folder) / "tested.fa", Path(folder) / "others.fa"
        _write_fasta(rows.sequences, np.flatnonzero(tested), query)
        _write_fasta(rows.sequences, np.flatnonzero(reference), target)
        hits = _ALIGNERS[name](query, target, threads or usable_cores())
    identity = _highest_identity(rows, hits)
    return Homologs(tool=f"{name} {_version(name)}", found=identity > 0, identity=identity)


def _highest_identity(rows: AuditRows, hits: Hits) -> NDArray[np.float64]:
    """Highest identity of each row's homologs, 0 for a row without homologs, shape (R,)."""
    allowed = rows.references[rows.split[hits.row], rows.split[hits.other]] & (hits.row != hits.other)
    good = allowed & (hits.identity >= IDENTITY) & (hits.coverage >= COVERAGE)
    identity = np.zeros(len(rows))
    np.maximum.at(identity, hits.row[good], hits.identity[good])
    return identity


def _write_fasta(sequences: Sequences, chosen: Ints, path: Path) -> None:
    """Write some sequences, named by their row."""
    with path.open("wb") as file:
        for start in range(0, len(chosen), _WRITTEN_ROWS):
            for row in chosen[start : start + _WRITTEN_ROWS].tolist():
                codes = np.asarray(sequences.codes[sequences.offsets[row] : sequences.offsets[row + 1]])
                letters = _LETTERS[np.minimum(codes, len(_LETTERS) - 1)]
                file.write(b">%d\n%s\n" % (row, letters.tobytes()))


def _run(command: list[str], out: Path | None = None) -> None:
    """Run an aligner.

    Raises:
        BendError: It failed.
    """
    program = shutil.which(command[0])
    if program is None:
        raise BendError(f"{command[0]} is not on the PATH; install it")
    with tempfile.TemporaryFile() as said:
        with out.open("wb") if out is not None else tempfile.TemporaryFile() as written:
            done = subprocess.run(  # noqa: S603 - the arguments are this file's and names of temporary files
                [program, *command[1:]], stdout=written, stderr=said, check=False
            )
        said.seek(0)
        if done.returncode:
            text = said.read().decode("utf-8", "replace").strip()[-300:]
            raise BendError(
                f"{command[0]} failed with status {done.returncode}: {text}; leave it out with --homology off"
            )


def _by_mmseqs(query: Path, target: Path, threads: int) -> Hits:
    out = query.with_name("hits.tsv")
    fields = "query,target,fident,qstart,qend,qlen"
    command = ["mmseqs", "easy-search", str(query), str(target), str(out), str(query.with_name("tmp"))]
    command += ["--search-type", "3", "--threads", str(threads), "-e", _MAX_EVALUE, "--max-seqs", str(_HITS)]
    _run([*command, "--format-output", fields])
    return hits_of_mmseqs(out)


def hits_of_mmseqs(path: Path) -> Hits:
    """Read the table that mmseqs writes: query, target, identity, first and last letter (from 1) and length."""
    table = _table(path, (0, 1, 2, 3, 4, 5))
    identity = table[:, 2] / (100 if (table[:, 2] > 1).any() else 1)  # older releases write percent
    coverage = (np.abs(table[:, 4] - table[:, 3]) + 1) / np.maximum(table[:, 5], 1)
    return _hits(table, identity, coverage)


def _by_minimap2(query: Path, target: Path, threads: int) -> Hits:
    out = query.with_name("hits.paf")
    # Short k-mers find relatives of 80 % identity in windows of some hundred nucleotides; -c aligns letter by letter.
    command = ["minimap2", "-c", "-k", "13", "-w", "5", "-s", "40", "-m", "25", "-N", str(_HITS), "-p", "0.1"]
    _run([*command, "-t", str(threads), str(target), str(query)], out)
    return hits_of_minimap2(out)


def hits_of_minimap2(path: Path) -> Hits:
    """Read the PAF that minimap2 writes: columns 1 to 4, 6, 10 and 11 of its twelve, 0-based and half-open."""
    table = _table(path, (0, 5, 1, 2, 3, 9, 10))
    identity = table[:, 5] / np.maximum(table[:, 6], 1)
    coverage = (table[:, 4] - table[:, 3]) / np.maximum(table[:, 2], 1)
    return _hits(table, identity, coverage)


def _table(path: Path, columns: tuple[int, ...]) -> NDArray[np.float64]:
    if not path.stat().st_size:
        return np.zeros((0, len(columns)))
    return np.loadtxt(path, delimiter="\t", usecols=columns, dtype=np.float64, ndmin=2, comments=None)


def _hits(table: NDArray[np.float64], identity: NDArray[np.float64], coverage: NDArray[np.float64]) -> Hits:
    return Hits(
        row=table[:, 0].astype(np.int64), other=table[:, 1].astype(np.int64), identity=identity, coverage=coverage
    )


def _version(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        return ""
    flag = "version" if name == "mmseqs" else "--version"
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are fixed
            [program, flag], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "of an unknown version"
    found = re.search(r"\S+", done.stdout)
    return found[0] if found else "of an unknown version"


_ALIGNERS: Final[Mapping[str, Callable[[Path, Path, int], Hits]]] = MappingProxyType(
    {"mmseqs": _by_mmseqs, "minimap2": _by_minimap2}
)
