"""Download BEND's published files and genomes, or built datasets of the Hub, into a data folder.

Each file is checked: against the sha256 that was recorded when it first arrived, or that its build wrote.

>>> from bend_hf.tasks import TASKS
>>> [file.name for file in published_files(TASKS.get("variant_effects_disease"), SHARES["erda"])]
['variant_effects/variant_effects_disease.bed', 'genomes/GRCh38.primary_assembly.genome.fa']
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.download import Progress, RemoteFile, Retry, download
from bend_hf.data.gzip_files import open_gzip
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.errors import DownloadError, InputError, MissingFileError, hub_errors
from bend_hf.files import atomic_path, file_sha256, parse_json, read_text, write_text
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, NucleotideClasses

# Share ids have changed before; --base-url gives a new address.
SHARES: Final = {
    "erda": "https://sid.erda.dk/share_redirect/aNQa0Oz2lY/data",  # BEND scripts/download_bend.py
    "gcs": "https://storage.googleapis.com/curvebio-mahdibaghbanzadeh/bend",  # a mirror, named in a fork's Makefile
}
GENOMES: Final = {
    "GRCh38": "genomes/GRCh38.primary_assembly.genome.fa",  # BEND conf/embedding/embed.yaml, reference_fasta
    "GRCh37": "genomes/GRCh37.no-chr.fa",  # the same file, chromatin_accessibility
}
# For shares without a genome: the same sequence, compressed, from its publisher.
GENOME_ORIGINS: Final = {
    # GENCODE, human, release 44: file of the primary assembly, contigs chr1 ...
    "GRCh38": "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human/release_44/"
    "GRCh38.primary_assembly.genome.fa.gz",
    # Ensembl: the contigs of GRCh37 are named 1, 2 ..., as in BEND's file "no-chr"
    "GRCh37": "https://ftp.ensembl.org/pub/grch37/current/fasta/homo_sapiens/dna/"
    "Homo_sapiens.GRCh37.dna.primary_assembly.fa.gz",
}
SUMS_FILE: Final = "sha256.json"
SUMS_TEXT: Final = "sha256.txt"

FileProgress: TypeAlias = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A place that holds BEND's files.

    Attributes:
        base_url: Address of the folder that holds BEND's folders.
        genomes: Address of each assembly's compressed FASTA file, for shares without genomes.
        retry: How often to try.
    """

    base_url: str
    genomes: Mapping[str, str] = field(default_factory=lambda: dict(GENOME_ORIGINS))
    retry: Retry | None = None


def published_files(task: TaskSpec, base_url: str) -> list[RemoteFile]:
    """List the files of a task in BEND's layout: BED, labels if they are a separate file, genome.

    Raises:
        DownloadError: The genome of the task's assembly is not published.
    """
    if task.assembly not in GENOMES:
        raise DownloadError(f"{task.key} is not published: no genome is known for its assembly {task.assembly!r}")
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
    log: Callable[[str], None] = lambda text: None,
    progress: FileProgress = lambda name, done, total: None,
) -> list[Path]:
    """Download the files of some tasks, each once; existing files are only checked.

    The sha256 of each file is written to ``sha256.json`` in the folder when it arrives, and checked from then on. A
    sum that is in ``sha256.json`` beforehand, such as a colleague's, must match, and so must the sums of a
    ``sha256.txt`` in the folder or next to the file, which holds lines as ``sha256sum`` prints them.

    Args:
        tasks: The tasks.
        folder: The data folder.
        published: The place to download from.
        log: Called with a line for each download.
        progress: Called with a file's name, the number of its bytes that have arrived, and the total if known.

    Returns:
        The files.

    Raises:
        DownloadError: A file cannot be downloaded, or has another sum.
    """
    wanted = {file.name: file for task in tasks for file in published_files(task, published.base_url)}
    return [_fetch(file, folder, published, log, progress) for file in wanted.values()]


def _fetch(
    file: RemoteFile, folder: Path, published: Published, log: Callable[[str], None], progress: FileProgress
) -> Path:
    target = folder / file.name
    known = _known_sum(folder, file.name)
    exists = target.is_file()

    def report(done: int, total: int | None) -> None:
        progress(file.name, done, total)

    if not exists:
        log(f"{file.name} from {file.url}")
        remote = replace(file, name=target.name, sha256=known)
        try:
            download(remote, target.parent, retry=published.retry, progress=report)
        except MissingFileError:
            url = next((published.genomes.get(name) for name, path in GENOMES.items() if path == file.name), None)
            if url is None:
                raise
            _fetch_genome(target, url, published.retry, log, report)
    with target.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if known is not None and digest != known:
        raise DownloadError(
            f"{target} has sha256 {digest}; expected {known}, see {SUMS_FILE} and {SUMS_TEXT} in {folder}. It was "
            "changed or damaged; remove it and download it again"
        )
    if file.name not in read_sums(folder):
        add_sums(folder, {file.name: digest})
    return target


def _known_sum(folder: Path, name: str) -> str | None:
    """Return the sum that a file must have, if it is known; two places that know it must agree."""
    target = folder / name
    found = {
        folder / SUMS_FILE: read_sums(folder).get(name),
        folder / SUMS_TEXT: _read_sums_text(folder / SUMS_TEXT).get(name),
        target.with_name(SUMS_TEXT): _read_sums_text(target.with_name(SUMS_TEXT)).get(target.name),
    }
    known = {path: digest for path, digest in found.items() if digest is not None}
    if len(set(known.values())) > 1:
        both = " and ".join(f"{digest} in {path}" for path, digest in known.items())
        raise DownloadError(f"the sha256 of {name} is {both}; correct one of them, or remove the older one")
    return next(iter(known.values()), None)


def _read_sums_text(path: Path) -> dict[str, str]:
    """Read the lines ``<sha256>  <name>`` of a file, as ``sha256sum`` prints them; none if there is no file."""
    sums = {}
    try:
        lines = read_text(path).splitlines() if path.is_file() else []
    except (OSError, InputError) as error:
        raise DownloadError(f"{path} cannot be read ({error}); write it with sha256sum, or remove it") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(.+)", line.strip())
        if match is None:
            raise DownloadError(
                f"{path}, line {number} is {line[:100]!r}; expected '<sha256>  <file name>', as sha256sum prints it"
            )
        sums[match[2]] = match[1].lower()
    return sums


def _fetch_genome(target: Path, url: str, retry: Retry | None, log: Callable[[str], None], report: Progress) -> None:
    """Download a compressed genome and unpack it."""
    log(f"  not in the share; from {url}")
    packed = download(RemoteFile(name=f"{target.name}.gz", url=url), target.parent, retry=retry, progress=report)
    try:
        with atomic_path(target) as part, open_gzip(packed) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        packed.unlink()
        raise DownloadError(f"{url} is not a complete gzip file ({error}); try again") from error
    packed.unlink()


def read_sums(folder: Path) -> dict[str, str]:
    """Read the recorded sha256 of the files of a data folder.

    Raises:
        DownloadError: ``sha256.json`` is damaged.
    """
    path = folder / SUMS_FILE
    try:
        sums = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not isinstance(sums, dict) or not all(isinstance(one, str) for one in sums.values()):
            raise ValueError("an object of file names and sums is expected")
    except (ValueError, RecursionError) as error:
        raise DownloadError(
            f"{path} is not valid JSON ({error}); correct it, or remove it to record the sums again"
        ) from error
    return sums


def add_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Record the sha256 of files of a data folder."""
    path = folder / SUMS_FILE
    write_text(path, json.dumps({**read_sums(folder), **sums}, indent=2, sort_keys=True) + "\n")


def fetch_from_hub(
    tasks: Sequence[TaskSpec],
    folder: Path,
    *,
    namespace: str = HUB_NAMESPACE,
    revision: str | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Download the whole dataset of each task's group; ``--data FOLDER`` then reads it without a network.

    Args:
        tasks: The tasks.
        folder: The data folder; a dataset goes to ``<folder>/<group>``.
        namespace: User or organization that owns the datasets.
        revision: Branch, tag or commit; the main branch if None.
        log: Called with a line for each download.

    Returns:
        The files.

    Raises:
        DownloadError: The Hub does not have a dataset, or a file is not what its build wrote.
    """
    found = []
    for group in dict.fromkeys(task.group for task in tasks):
        log(f"{namespace}/{group} from the Hub")
        found += _fetch_repository(f"{namespace}/{group}", folder, folder / group, revision)
    return found


def _fetch_repository(repo: str, folder: Path, place: Path, revision: str | None) -> list[Path]:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=place)
    except hub_errors(OSError, ValueError) as error:
        raise DownloadError(
            f"the dataset {repo} cannot be downloaded ({type(error).__name__}). Check the name, the network and "
            "'hf auth login', and repeat the command to resume"
        ) from error
    return [path for facts in sorted(place.glob(f"data/**/{FACTS_FILE}")) for path in _checked(facts, folder)]


def _checked(facts: Path, folder: Path) -> list[Path]:
    sums: dict[str, str] = parse_json(facts.read_text(encoding="utf-8"))["sha256"]
    for name, meant in sums.items():
        path = facts.with_name(name)
        digest = file_sha256(path) if path.is_file() else "(no file)"
        if digest != meant:
            raise DownloadError(
                f"{path} has sha256 {digest}; expected {meant}, as its build wrote. Remove it and download it again"
            )
    add_sums(folder, {facts.with_name(name).relative_to(folder).as_posix(): meant for name, meant in sums.items()})
    return [facts.with_name(name) for name in sums]
