"""The trained heads next to a model card: one for each score, by a name that says which.

>>> head_name("gene_finding", "bend-2024", "cnn")
'heads/gene_finding__bend-2024__cnn.safetensors'
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import atomic_path, explain_write_errors, file_name, file_sha256
from bend_hf.publishing.results import group_records
from bend_hf.tasks import TASKS

if TYPE_CHECKING:
    from bend_hf.publishing.results import ResultGroup

log = logging.getLogger(__name__)

FOLDER: Final = "heads"  # where bend_hf.load_head looks for them; see training.load_head
REPO: Final = "OWNER/NAME"  # in the card's example, until a push knows the repository
_EXAMPLE_BP: Final = 1024


def head_name(task: str, protocol: str, probe: str) -> str:
    """Return the path of a head in the repository of a card."""
    return f"{FOLDER}/{file_name(task)}__{protocol}__{file_name(probe)}.safetensors"


def heads_of(records: Sequence[ResultRecord]) -> dict[str, ResultRecord]:
    """Return the record of each head next to the card of some records, by the path of the head.

    The seeds of a score are trainings of equal standing; the head of the first seed that kept one is taken.
    """
    return {
        head_name(result.task, result.protocol, one.probe): one
        for result in group_records(records)
        for one in [next((record for record in result.records if record.kept), None)]
        if one is not None
    }


def with_heads_at_hand(found: Iterable[tuple[Path, ResultRecord]]) -> Iterator[ResultRecord]:
    """Yield records; of those whose head is missing, the card is to name none.

    Raises:
        RecordError: A head differs from what its record states.
    """
    for path, record in found:
        file = None if not record.kept else path.with_name(str(member(record.kept, "file")))
        if file is None:
            yield record
        elif not file.is_file():
            log.warning("%s, which %s names, is missing; the card comes without it", file, path.name)
            yield replace(record, kept={})
        elif file_sha256(file) != member(record.kept, "sha256"):
            raise RecordError(f"{file} differs from what {path.name} states (sha256); restore it, or repeat the run")
        else:
            yield record


def files_of_heads(paths: Sequence[Path], records: Sequence[ResultRecord]) -> dict[str, Path]:
    """Return the files of the heads that records name, by their sha256.

    Args:
        paths: The files of the records.
        records: The records.
    """
    kept = [(path, record.kept) for path, record in zip(paths, records, strict=True) if record.kept]
    return {str(member(entry, "sha256")): path.with_name(str(member(entry, "file"))) for path, entry in kept}


def copy_heads(records: Sequence[ResultRecord], files: Mapping[str, Path], out: Path) -> list[Path]:
    """Copy the heads of a card next to it, and remove those of an earlier card.

    Args:
        records: Records of the card.
        files: The files of heads by their sha256.
        out: Folder of the card.

    Returns:
        The copies.

    Raises:
        RecordError: The folder cannot be written.
    """
    wanted = heads_of(records)
    for stale in (out / FOLDER).glob("*.safetensors"):
        if f"{FOLDER}/{stale.name}" not in wanted:
            stale.unlink()
    copies = []
    for name, record in wanted.items():
        copies.append(out / name)
        with explain_write_errors(out / name), atomic_path(out / name) as part:
            shutil.copyfile(files[str(member(record.kept, "sha256"))], part)
    return copies


def check_heads(folder: Path, records: Sequence[ResultRecord]) -> dict[str, Path]:
    """Return the heads in the folder of a card by their path in the repository.

    Raises:
        RecordError: One is missing, or differs from what its record states.
    """
    found = {name: folder / name for name in heads_of(records)}
    for name, record in heads_of(records).items():
        if not found[name].is_file() or file_sha256(found[name]) != member(record.kept, "sha256"):
            raise RecordError(
                f"{found[name]} is missing or differs from what its record states; write the card again with "
                "'bend-hf card'"
            )
    return found


def head_fields(results: Sequence[ResultGroup]) -> dict[str, Any] | None:
    """Return the fields of the template about heads; None if no head is next to the card."""
    heads = heads_of([record for result in results for record in result.records])
    if not heads:
        return None
    rows = [
        {
            "title": TASKS.get(record.task).title if record.task in TASKS else record.task,
            "protocol": record.protocol,
            "seed": record.config.get("seed"),
            "fold": member(record.kept, "fold"),
            "size": member(record.kept, "bytes"),
            "file": name,
        }
        for name, record in heads.items()
    ]
    first = next(iter(heads.values()))
    window_bp = TASKS.get(first.task).window_bp if first.task in TASKS else None
    return {"repo": REPO, "rows": rows, "repeats": -(-(window_bp or _EXAMPLE_BP) // 4)}


def with_repo(card: str, repo: str) -> str:
    """Write the repository of a card into its example."""
    return card.replace(f'load_head("{REPO}/', f'load_head("{repo}/')
