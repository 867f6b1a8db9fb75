"""Read a shared store of results: a dataset repository with records and predictions of anybody.

    OWNER/bend_results/TASK/RUN.json         a record
    OWNER/bend_results/TASK/RUN.parquet      its predictions

Nothing that comes from the Hub is trusted. Sizes are checked before a file is fetched, predictions by their sha256, and
a record as one's own are: its form, its ranges, and its values, which are computed again from the predictions. A record
that fails is left out with one warning. `bend_hf.publishing.uploads.plan_results` writes a store.

>>> store_name("hub:someone"), store_name("hub:someone/scores")
('someone/bend_results', 'someone/scores')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.evidence import prediction_entries, read_verified
from bend_hf.evaluation.record import ResultRecord, member, read_record
from bend_hf.files import file_name
from bend_hf.publishing.hub import check_repo_name, explained
from bend_hf.publishing.publishable import reasons_not_to_publish
from bend_hf.publishing.ties import prediction_files
from bend_hf.tables import n_bytes, printable

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

RESULTS_REPO: Final = "bend_results"
PREFIX: Final = "hub:"
_NAME: Final = re.compile(r"[\w+-][\w.+-]*\.json")  # as a run names its record
_LARGEST_RECORD: Final = 16 << 20  # bytes; a record with folds and tables of 125 labels takes less than 1 MB
_LARGEST_PREDICTIONS: Final = 4 << 30  # bytes; 2 million rows with 125 scores in float32 take 1 GB
_LONGEST_REASON: Final = 300  # signs of a warning


@dataclass(frozen=True, kw_only=True)
class StoredResults:
    """The usable records of a store.

    Attributes:
        repo: ``OWNER/NAME`` of the store.
        commit: Commit at which it was read.
        records: The records.
        files: Prediction files by the sha256 in the records.
    """

    repo: str
    commit: str
    records: tuple[ResultRecord, ...]
    files: Mapping[str, Path]


def store_name(value: str) -> str:
    """Read ``hub:OWNER/NAME`` or ``hub:OWNER``, which stands for ``OWNER/bend_results``.

    Raises:
        ConfigError: It has another form, or the Hub takes no such name.
    """
    if not value.startswith(PREFIX):
        raise ConfigError(f"{value!r} names no store of results; expected hub:OWNER/NAME")
    return full_name(value.removeprefix(PREFIX))


def full_name(name: str) -> str:
    """Complete the name of a store: ``OWNER`` stands for ``OWNER/bend_results``.

    Raises:
        ConfigError: The Hub takes no such name.
    """
    repo = name if "/" in name else f"{name}/{RESULTS_REPO}"
    check_repo_name(repo)
    return repo


def read_store(repo: str, tasks: Collection[str], *, log: Callable[[str], None] = lambda text: None) -> StoredResults:
    """Fetch the records of some tasks from a store with their predictions, and check them.

    Args:
        repo: ``OWNER/NAME`` of the store.
        tasks: Keys of the tasks.
        log: Receives one line for each record that is left out, with the reason.

    Raises:
        HubError: The store does not exist, cannot be read, or the connection was lost. Files that were fetched stay in
            the cache of huggingface_hub.
    """
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    with explained(f"dataset {repo}", reading=True):
        commit = str(api.repo_info(repo, repo_type="dataset").sha)
        tree = list(api.list_repo_tree(repo, recursive=True, repo_type="dataset", revision=commit))
    store = _Store(repo=repo, commit=commit, files={one.path: one for one in tree if isinstance(one, RepoFile)})
    folders = {file_name(task) for task in tasks}
    paths, records = [], []
    for path in sorted(store.files):
        folder, _, name = path.rpartition("/")
        if folder not in folders or not name.endswith(".json"):
            continue
        try:
            if not _NAME.fullmatch(name):
                raise RecordError(
                    f"its name is {name!r}; expected letters, digits and - _ . + as runs name their records"
                )
            local, record = store.record(path)
        except RecordError as error:
            reason = " ".join(printable(str(error)).split())[:_LONGEST_REASON]
            log(f"WARNING: {printable(path)} of {repo} is left out: {reason}")
            continue
        paths.append(local)
        records.append(record)
    return StoredResults(repo=repo, commit=commit, records=tuple(records), files=prediction_files(paths, records))


@dataclass(frozen=True, kw_only=True)
class _Store:
    """A store at one commit, with its files by path."""

    repo: str
    commit: str
    files: Mapping[str, RepoFile]

    def record(self, path: str) -> tuple[Path, ResultRecord]:
        """Fetch a record and its predictions.

        Raises:
            RecordError: The record is malformed, too large, of another task, or does not agree with its predictions.
            HubError: A file cannot be fetched.
        """
        local = self._fetched(path, _LARGEST_RECORD)
        record = read_record(local)
        folder = path.rpartition("/")[0]
        if file_name(record.task) != folder:
            raise RecordError(f"it is a record of {record.task!r}; expected one of {folder}")
        if reasons := reasons_not_to_publish(record):
            raise RecordError(f"it may not be published: {'; '.join(reasons)}")
        for entry in prediction_entries(record):
            self._fetched(f"{folder}/{member(entry, 'file')}", _LARGEST_PREDICTIONS, sha256=member(entry, "sha256"))
        return local, read_verified(local)

    def _fetched(self, path: str, limit: int, *, sha256: object = None) -> Path:
        from huggingface_hub import hf_hub_download

        file = self.files.get(path)
        if file is None:
            raise RecordError(f"{path} is not in the store; expected it next to the record")
        if file.size > limit:
            raise RecordError(f"{path} has {n_bytes(file.size)}; expected at most {n_bytes(limit)}")
        if file.lfs is not None and sha256 is not None and file.lfs.sha256 != sha256:
            raise RecordError(f"{path} has the sha256 {file.lfs.sha256[:12]}, but the record states {str(sha256)[:12]}")
        with explained(f"dataset {self.repo}", reading=True):
            return Path(hf_hub_download(self.repo, path, repo_type="dataset", revision=self.commit))
