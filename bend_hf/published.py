"""Where BEND's own files are published, and how they are fetched into a data folder.

>>> from bend_hf.tasks import TASKS
>>> [file.name for file in published_files(TASKS.get("variant_effects_disease"), SHARES["erda"])]
['variant_effects/variant_effects_disease.bed', 'genomes/GRCh38.primary_assembly.genome.fa']
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bend_hf.download import RemoteFile, Retry, download
from bend_hf.errors import DownloadError
from bend_hf.labels import BinClasses, NucleotideClasses
from bend_hf.tasks import TaskSpec

# Addresses off the code of others who run BEND's data; share ids have changed before, --base-url gives a new one.
SHARES: Final = {
    "erda": "https://sid.erda.dk/share_redirect/aNQa0Oz2lY/data",  # BEND scripts/download_bend.py
    "gcs": "https://storage.googleapis.com/curvebio-mahdibaghbanzadeh/bend",  # a mirror, read off a fork's Makefile
}
GENOMES: Final = {
    "GRCh38": "genomes/GRCh38.primary_assembly.genome.fa",  # BEND conf/embedding/embed.yaml, reference_fasta
    "GRCh37": "genomes/GRCh37.no-chr.fa",  # the same file, chromatin_accessibility
}
SUMS_FILE: Final = "sha256.json"


def published_files(task: TaskSpec, base_url: str) -> list[RemoteFile]:
    """The files of a task in BEND's layout: bed, labels where they are apart, genome."""
    names = [f"{task.group}/{task.key}.bed"]
    if isinstance(task.label, NucleotideClasses | BinClasses):
        names.append(f"{task.group}/{task.key}.hdf5")
    names.append(GENOMES[task.assembly])
    return [RemoteFile(name=name, url=f"{base_url.rstrip('/')}/{name}") for name in names]


def fetch_published(
    tasks: Sequence[TaskSpec],
    folder: Path,
    *,
    base_url: str,
    retry: Retry | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Fetches the files of some tasks, each once; what is there already is left alone.

    The sha256 of each file is written to ``sha256.json`` in the folder when it arrives, and checked from then on.

    Raises:
        DownloadError: A file cannot be fetched, or one that is there is not what once arrived.
    """
    sums_path = folder / SUMS_FILE
    sums: dict[str, str] = json.loads(sums_path.read_text(encoding="utf-8")) if sums_path.is_file() else {}
    fetched = []
    wanted = {file.name: file for task in tasks for file in published_files(task, base_url)}
    for name, file in wanted.items():
        say(f"{name} from {file.url}")
        place = (folder / name).parent
        path = download(RemoteFile(name=Path(name).name, url=file.url), place, retry=retry)
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if sums.setdefault(name, digest) != digest:
            raise DownloadError(
                f"{path} has sha256 {digest}, but {sums[name]} when it arrived; it was changed or damaged, "
                "remove it and fetch it again"
            )
        part = sums_path.with_name(f".{SUMS_FILE}.part{os.getpid()}")
        part.write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(part, sums_path)
        fetched.append(path)
    return fetched
