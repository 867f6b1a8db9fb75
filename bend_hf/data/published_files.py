"""Where BEND's own files and the reference genomes are published, and how they come into a data folder.

>>> from bend_hf.tasks import TASKS
>>> [file.name for file in published_files(TASKS.get("variant_effects_disease"), SHARES["erda"])]
['variant_effects/variant_effects_disease.bed', 'genomes/GRCh38.primary_assembly.genome.fa']

Built datasets from the Hub into a data folder, each file checked against the sum its build wrote.

from bend_hf.data.published_files import fetch_from_hub
fetch_from_hub(select_tasks(["gene_finding"]), Path("data"))
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.download import Progress, RemoteFile, Retry, download
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.errors import DownloadError, MissingFileError
from bend_hf.files import atomic_path, file_sha256, write_text
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, NucleotideClasses

# Addresses off the code of others who run BEND's data; share ids have changed before, --base-url gives a new one.
SHARES: Final = {
    "erda": "https://sid.erda.dk/share_redirect/aNQa0Oz2lY/data",  # BEND scripts/download_bend.py
    "gcs": "https://storage.googleapis.com/curvebio-mahdibaghbanzadeh/bend",  # a mirror, read off a fork's Makefile
}
GENOMES: Final = {
    "GRCh38": "genomes/GRCh38.primary_assembly.genome.fa",  # BEND conf/embedding/embed.yaml, reference_fasta
    "GRCh37": "genomes/GRCh37.no-chr.fa",  # the same file, chromatin_accessibility
}
# Where a share lacks a genome: the same sequence from who publishes it, compressed.
GENOME_ORIGINS: Final = {
    # GENCODE, human, release 44: file of the primary assembly, contigs chr1 ...
    "GRCh38": "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human/release_44/GRCh38.primary_assembly.genome.fa.gz",
    # Ensembl for GRCh37: its contigs are called 1, 2 ..., as in BEND's file "no-chr"
    "GRCh37": "https://ftp.ensembl.org/pub/grch37/current/fasta/homo_sapiens/dna/"
    "Homo_sapiens.GRCh37.dna.primary_assembly.fa.gz",
}
SUMS_FILE: Final = "sha256.json"

FileProgress: TypeAlias = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where to fetch from.

    Attributes:
        base_url: Address that BEND's folders lie below.
        genomes: Address of each assembly's compressed FASTA, for shares that lack them.
        retry: How often to try.
    """

    base_url: str
    genomes: Mapping[str, str] = field(default_factory=lambda: dict(GENOME_ORIGINS))
    retry: Retry | None = None


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
    published: Published,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: FileProgress = lambda name, done, total: None,
) -> list[Path]:
    """Fetches the files of some tasks, each once; what is there already is checked and left alone.

    The sha256 of each file is written to ``sha256.json`` in the folder when it arrives and checked from then on; a
    sum that stands there beforehand, such as a colleague's, is what the file must have.

    Args:
        tasks: Which.
        folder: The data folder.
        published: Where from.
        say: Told what is being fetched.
        progress: Told of each file how many bytes of how many are there.

    Returns:
        The files.

    Raises:
        DownloadError: A file cannot be fetched, or is not what the sum says.
    """
    wanted = {file.name: file for task in tasks for file in published_files(task, published.base_url)}
    return [_fetch(file, folder, published, say, progress) for file in wanted.values()]


def _fetch(
    file: RemoteFile, folder: Path, published: Published, say: Callable[[str], None], progress: FileProgress
) -> Path:
    known = read_sums(folder).get(file.name)
    target = folder / file.name
    there = target.is_file()

    def report(done: int, total: int | None) -> None:
        progress(file.name, done, total)

    if not there:
        say(f"{file.name} from {file.url}")
        remote = replace(file, name=target.name, sha256=known)
        try:
            download(remote, target.parent, retry=published.retry, progress=report)
        except MissingFileError:
            url = next((published.genomes.get(name) for name, path in GENOMES.items() if path == file.name), None)
            if url is None:
                raise
            _fetch_genome(target, url, published.retry, say, report)
    with target.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if known is not None and digest != known:
        raise DownloadError(
            f"{target} has sha256 {digest}, but {known} stands in {folder / SUMS_FILE}; it was changed or damaged, "
            "remove it and fetch it again"
        )
    if known is None:
        add_sums(folder, {file.name: digest})
    return target


def _fetch_genome(target: Path, url: str, retry: Retry | None, say: Callable[[str], None], report: Progress) -> None:
    """Fetches a compressed genome and unpacks it."""
    say(f"  the share does not hold it; from {url}")
    packed = download(RemoteFile(name=f"{target.name}.gz", url=url), target.parent, retry=retry, progress=report)
    try:
        with atomic_path(target) as part, gzip.open(packed, "rb") as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        packed.unlink()
        raise DownloadError(f"{url} is not a complete gzip file ({error}); try again") from error
    packed.unlink()


def read_sums(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a data folder, as far as they were recorded.

    Raises:
        DownloadError: The file of sums is damaged.
    """
    path = folder / SUMS_FILE
    try:
        sums: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DownloadError(f"{path} is no JSON ({error}); mend it, or remove it to record the sums anew") from error
    return sums


def add_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Records the sha256 of files of a data folder."""
    path = folder / SUMS_FILE
    write_text(path, json.dumps({**read_sums(folder), **sums}, indent=2, sort_keys=True) + "\n")


def fetch_from_hub(
    tasks: Sequence[TaskSpec],
    folder: Path,
    *,
    namespace: str = HUB_NAMESPACE,
    revision: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Fetches the dataset of each task's group whole; ``--data FOLDER`` reads it from there without a network.

    Args:
        tasks: Which.
        folder: The data folder; a dataset goes to ``<folder>/<group>``.
        namespace: Whose datasets.
        revision: Branch, tag or commit; the main branch where None.
        say: Told what is being fetched.

    Returns:
        The files.

    Raises:
        DownloadError: The Hub does not have one, or a file is not what its build wrote.
    """
    found = []
    for group in dict.fromkeys(task.group for task in tasks):
        say(f"{namespace}/{group} from the Hub")
        found += _fetch_repository(f"{namespace}/{group}", folder, folder / group, revision)
    return found


def _fetch_repository(repo: str, folder: Path, place: Path, revision: str | None) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=place)
    except (OSError, ValueError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise DownloadError(
            f"the dataset {repo} cannot be fetched ({type(error).__name__}); check the name, the network and "
            "'hf auth login'; what has arrived is kept and taken up by the next run"
        ) from error
    return [path for facts in sorted(place.glob(f"data/**/{FACTS_FILE}")) for path in _checked(facts, folder)]


def _checked(facts: Path, folder: Path) -> list[Path]:
    sums: dict[str, str] = json.loads(facts.read_text(encoding="utf-8"))["sha256"]
    for name, meant in sums.items():
        path = facts.with_name(name)
        digest = file_sha256(path) if path.is_file() else "no bytes"
        if digest != meant:
            raise DownloadError(f"{path} has sha256 {digest}; its build wrote {meant}. Remove it and fetch it again")
    add_sums(folder, {facts.with_name(name).relative_to(folder).as_posix(): meant for name, meant in sums.items()})
    return [facts.with_name(name) for name in sums]
