"""Push files to the Hub. No other file of the package sends anything.

Each repository gets at most one commit per push. `HfApi.create_commit` leaves out files whose content is already
there, so a second push of the same files makes no commit, and an interrupted push can simply be repeated. The token
is the one that huggingface_hub stores; it never appears in a message.

>>> UploadFile(path="README.md", content=b"hello").n_bytes
5
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from bend_hf.errors import BendError, ConfigError, HubError, hub_errors
from bend_hf.publishing.card_folder import CARD_FILE, RECORDS_FILE, RemoteCard, merged_with
from bend_hf.publishing.card_heads import with_repo
from bend_hf.publishing.eval_results import FOLDER, entry_keys, merged
from bend_hf.publishing.readme_text import marked_readme, merge_readme
from bend_hf.tables import n_bytes

if TYPE_CHECKING:
    from huggingface_hub import HfApi, RepoFile

RepoType: TypeAlias = Literal["model", "dataset", "space"]

_ADVICE: Final = {
    401: "the token is missing, wrong or expired; run 'hf auth login' and try again",
    403: "the token has no write access there; ask for it, or give another --namespace",
    404: "the repository does not exist, or the token cannot see it; check --namespace and --repo",
    409: "the repository was changed meanwhile; repeat the command",
    412: "the repository was changed meanwhile; repeat the command",
    429: "too many requests; wait some minutes and repeat the command",
}
_READING_ADVICE: Final = {
    403: "the token may not read it; ask its owner for access",
    404: "the repository does not exist, or the token cannot see it; check its name",
}
_SERVER_FAILED: Final = "the Hub failed; repeat the command later"
_CONNECTION_LOST: Final = "the connection was lost; repeat the command"
_CONFLICT: Final = 409
_CONFLICTS: Final = 7  # answers to a request for a repository, after which another operation is waited for no longer
_FIRST_WAIT_S: Final = 0.25  # doubled after each conflict: 16 s in all


@dataclass(frozen=True)
class UploadFile:
    """One file to push.

    Attributes:
        path: Path in the repository.
        content: The bytes, or the local file that holds them.
    """

    path: str
    content: bytes | Path

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        """Content of the file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A repository and the files to push there.

    Attributes:
        repo: ``owner/name``.
        message: Title of the commit.
        space_sdk: SDK of a Space that does not exist yet.
        mirrored: Folders from which remote files that are not among ``files`` are removed.
        filled_by: Name of a file that every earlier push left in the repository; without it, no remote file is removed.
        create_pr: Whether to open a pull request on an existing repository instead of committing to one's own.
        own_card: Whether the files are those of a model card. It is merged with the repository's, and so is every other
            README.
        appends: Whether files are only added, as to a store of several people: no file of the repository is replaced,
            and its README stays as it is.
    """

    repo: str
    repo_type: RepoType
    files: tuple[UploadFile, ...]
    message: str
    space_sdk: Literal["gradio", "static"] | None = None
    mirrored: tuple[str, ...] = ()
    filled_by: str = ""
    create_pr: bool = False
    own_card: bool = False
    appends: bool = False

    def __post_init__(self) -> None:
        """Check the name of the repository, before anything is sent."""
        check_repo_name(self.repo)

    @property
    def name(self) -> str:
        """Name of the repository in messages."""
        return f"{self.repo_type} {self.repo}"

    def lines(self) -> list[str]:
        """List the repository and each file with its size."""
        how = " as a pull request" if self.create_pr else ""
        head = f"{self.name}{how}: {len(self.files)} files, {n_bytes(sum(file.n_bytes for file in self.files))}"
        return [head, *(f"  {file.path}  {n_bytes(file.n_bytes)}" for file in self.files)]


def check_repo_name(repo: str) -> None:
    """Check the name of a repository.

    Raises:
        ConfigError: It is not ``OWNER/NAME``, or the Hub takes no such name.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"the Hub takes no repository name {_short(repo)!r} ({_one_line(error)})") from error
    if not repo.isascii():  # which huggingface_hub 1 does not check
        raise ConfigError(f"the Hub takes no repository name {_short(repo)!r} (other letters than A to Z)")
    if "/" not in repo:
        raise ConfigError(f"the repository is {repo!r}; expected OWNER/NAME")


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """Outcome of one push.

    Attributes:
        changed: Whether a commit was made; False if all files were there already.
        url: Address of the commit, the pull request or, without a change, the repository.
    """

    upload: Upload
    changed: bool
    url: str


def push(uploads: Sequence[Upload], *, public: bool = False) -> Iterator[PushResult]:
    """Push one repository after the other. If one fails, those before it are complete.

    Args:
        uploads: Repositories and their files.
        public: Whether to make the repositories public; by default new ones are private and old ones keep their
            visibility.

    Raises:
        HubError: The Hub refused or cannot be reached. A repeated push does not send the same content twice.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise HubError("no Hub token is stored on this machine; run 'hf auth login' first")
    api = HfApi()
    for upload in uploads:
        with explained(upload.name):
            yield _push(api, upload, public=public)


def _push(api: HfApi, upload: Upload, *, public: bool) -> PushResult:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if not upload.create_pr:
        try:
            with _bounded_conflicts():
                api.create_repo(
                    upload.repo,
                    repo_type=upload.repo_type,
                    private=not public,
                    exist_ok=True,
                    space_sdk=upload.space_sdk,
                )
        except KeyError as error:  # it exists, and the answer lacks its address, which huggingface_hub reads
            if not _raised_in_huggingface_hub(error):
                raise
    revision = _open_pull_request(api, upload) if upload.create_pr else None
    before = api.repo_info(upload.repo, repo_type=upload.repo_type, revision=revision)
    if public and not upload.create_pr and before.private:
        api.update_repo_settings(upload.repo, repo_type=upload.repo_type, private=False)
    remote = set(api.list_repo_files(upload.repo, repo_type=upload.repo_type, revision=revision))
    repository = _Repository(api=api, upload=upload, files=frozenset(remote), revision=before.sha)
    files = _appended(repository) if upload.appends else _merged_with_remote(repository)
    _check_one_value_each(repository)
    _check_mirrored(repository)
    done = api.create_commit(
        upload.repo,
        [
            *(CommitOperationAdd(f.path, f.content if isinstance(f.content, bytes) else str(f.content)) for f in files),
            *(CommitOperationDelete(path) for path in _stale(upload, remote)),
        ],
        commit_message=upload.message,
        repo_type=upload.repo_type,
        revision=revision,
        create_pr=upload.create_pr and revision is None,
        parent_commit=before.sha,  # what was merged is what is there
    )
    changed = done.oid != before.sha  # create_commit returns the last commit if nothing differs
    url = str(done.pr_url or done.commit_url) if changed else _repository_url(api, upload)
    return PushResult(upload=replace(upload, files=tuple(files)), changed=changed, url=url)


@contextmanager
def _bounded_conflicts() -> Iterator[None]:
    """Wait between answers that another operation is in progress, and give up after some.

    huggingface_hub asks for the repository again at once, without an end.
    """
    from huggingface_hub import get_session

    conflicts = 0

    def wait(response: Any) -> None:  # noqa: ANN401  of httpx under one name or another, by huggingface_hub's release
        nonlocal conflicts
        if response.status_code != _CONFLICT or not response.request.url.path.endswith("/api/repos/create"):
            return
        conflicts += 1
        if conflicts == _CONFLICTS:
            raise HubError(
                f"the Hub is busy with another operation of this account ({conflicts} answers); "
                "repeat the command later"
            )
        if b"conflicting operation is in progress" in response.read():
            time.sleep(_FIRST_WAIT_S * 2 ** (conflicts - 1))

    hooks = get_session().event_hooks
    get_session().event_hooks = {**hooks, "response": [*hooks.get("response", []), wait]}
    try:
        yield
    finally:
        get_session().event_hooks = hooks


def _repository_url(api: HfApi, upload: Upload) -> str:
    folder = {"model": "", "dataset": "datasets/", "space": "spaces/"}[upload.repo_type]
    return f"{api.endpoint}/{folder}{upload.repo}"


def _open_pull_request(api: HfApi, upload: Upload) -> str | None:
    """The branch of our own open pull request with this title, if there is one."""
    user = api.whoami()["name"]
    for discussion in api.get_repo_discussions(
        upload.repo, repo_type=upload.repo_type, author=user, discussion_type="pull_request", discussion_status="open"
    ):
        if discussion.title == upload.message:
            return f"refs/pr/{discussion.num}"
    return None


@dataclass(frozen=True, kw_only=True)
class _Repository:
    """A repository as it is before a push."""

    api: HfApi
    upload: Upload
    files: frozenset[str]
    revision: str | None

    def text(self, path: str) -> str | None:
        """Text of a file with its line ends as they are; None if it is not there."""
        if path not in self.files:
            return None
        local = self.api.hf_hub_download(
            self.upload.repo, path, repo_type=self.upload.repo_type, revision=self.revision
        )
        return _utf8(UploadFile(path, Path(local)), self.upload)


def _merged_with_remote(repository: _Repository) -> list[UploadFile]:
    """The files of an upload, with what the repository holds of others and of other days."""
    upload = repository.upload
    files = {file.path: file for file in upload.files}
    if upload.own_card and CARD_FILE in files:
        remote = RemoteCard(readme=repository.text(CARD_FILE), records=repository.text(RECORDS_FILE))
        readme, records = (_utf8(files[path], upload) for path in (CARD_FILE, RECORDS_FILE))
        for path, text in merged_with(remote, readme, records, upload.name).items():
            files[path] = UploadFile(path, with_repo(text, upload.repo).encode())
    elif CARD_FILE in files:
        files[CARD_FILE] = _merged_readme(repository, files[CARD_FILE])
    for path, file in files.items():
        old = repository.text(path) if _is_scores(path) else None
        if old is not None:
            files[path] = UploadFile(path, merged(old, _utf8(file, upload), path).encode())
    return list(files.values())


def _appended(repository: _Repository) -> list[UploadFile]:
    """The files of an upload that only adds files.

    Raises:
        HubError: The repository holds another file of that name.
    """
    from huggingface_hub import RepoFile

    upload = repository.upload
    files = [file for file in upload.files if not (file.path == CARD_FILE and CARD_FILE in repository.files)]
    there = {file.path: file for file in files if file.path in repository.files and file.path != CARD_FILE}
    known = (
        repository.api.get_paths_info(
            upload.repo, list(there), repo_type=upload.repo_type, revision=repository.revision
        )
        if there
        else []
    )
    for remote in known:
        if isinstance(remote, RepoFile) and not _same_content(remote, there[remote.path].read()):
            raise HubError(
                f"{upload.name} already holds another {remote.path}, and results that are there are not replaced. Run "
                "it again, which gives it a new name, or give another --to."
            )
    return files


def _same_content(remote: RepoFile, content: bytes) -> bool:
    if remote.lfs is not None:
        return remote.lfs.sha256 == hashlib.sha256(content).hexdigest()
    blob = b"blob %d\0" % len(content) + content  # what git hashes
    return remote.blob_id == hashlib.sha1(blob, usedforsecurity=False).hexdigest()


def _merged_readme(repository: _Repository, file: UploadFile) -> UploadFile:
    """The README of a repository that holds no model card."""
    ours, theirs = marked_readme(_utf8(file, repository.upload)), repository.text(CARD_FILE)
    if theirs is not None:
        ours = merge_readme(ours, theirs, f"{CARD_FILE} of {repository.upload.name}")
    return UploadFile(CARD_FILE, ours.encode())


def _check_one_value_each(repository: _Repository) -> None:
    """Raise if another score file of the repository holds a value of a leaderboard that is pushed."""
    upload = repository.upload
    pushed = {
        key for file in upload.files if _is_scores(file.path) for key in entry_keys(_utf8(file, upload), file.path)
    }
    ours = {file.path for file in upload.files}
    for path in sorted(path for path in repository.files - ours if pushed and _is_scores(path)):
        try:
            there = entry_keys(repository.text(path) or "", path)
        except BendError:
            continue  # a file of another form holds no value
        for dataset, task_id in sorted(pushed & there):
            raise HubError(
                f"{upload.name}: {path} already holds a value for {task_id} of {dataset}, and a leaderboard takes one. "
                "Remove that entry there and repeat the command."
            )


def _check_mirrored(repository: _Repository) -> None:
    """Raise if files would be removed from a repository that bend_hf did not fill."""
    upload = repository.upload
    stale = _stale(upload, repository.files)
    if stale and upload.filled_by not in {Path(path).name for path in repository.files}:
        raise HubError(
            f"{upload.name} holds {stale[0]} ({len(stale)} files of {', '.join(upload.mirrored)} that are not among "
            "those to push), and bend_hf did not put them there. Remove them there, or give another --namespace or "
            "--repo."
        )


def _is_scores(path: str) -> bool:
    return path.startswith(f"{FOLDER}/") and path.endswith((".yaml", ".yml"))


def _utf8(file: UploadFile, upload: Upload) -> str:
    try:
        return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise HubError(f"{upload.name}: {file.path} is not UTF-8 text ({error.reason}); fix or remove it") from error


def _stale(upload: Upload, remote: Collection[str]) -> list[str]:
    """Remote files of the mirrored folders that are no longer among the files."""
    wanted = {file.path for file in upload.files}
    mirrored = tuple(f"{folder}/" for folder in upload.mirrored)
    return sorted(path for path in remote if path not in wanted and path.startswith(mirrored))


@contextmanager
def explained(name: str, *, reading: bool = False) -> Iterator[None]:
    """Turn an error of huggingface_hub into one that says what failed, where, and what to do.

    Args:
        name: Kind and name of the repository.
        reading: Whether it is read and not pushed to.
    """
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except BendError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError(f"{name}: HF_HUB_OFFLINE is set; unset it to {'read it' if reading else 'push'}") from error
    except (KeyError, TypeError, AttributeError) as error:
        if not _raised_in_huggingface_hub(error):
            raise
        raise HubError(f"{name}: {_unreadable(error)}") from error
    except hub_errors(OSError, RuntimeError, ValueError) as error:
        raise _hub_error(name, error, reading=reading) from error


def _raised_in_huggingface_hub(error: Exception) -> bool:
    """Whether huggingface_hub stumbled over an answer, such as one without an address; other errors are defects."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__")).startswith("huggingface_hub")


def _unreadable(error: Exception) -> str:
    return (
        f"the Hub's answer could not be read ({type(error).__name__}: {_one_line(error)}). "
        "Check HF_ENDPOINT and any proxy, and repeat the command"
    )


def _hub_error(name: str, error: Exception, *, reading: bool) -> HubError:
    status = _status(error)
    if status is None and type(error).__name__ == "JSONDecodeError":  # requests has one of its own
        return HubError(f"{name}: {_unreadable(error)}")
    advice = {**_ADVICE, **(_READING_ADVICE if reading else {})}
    if status is None and isinstance(error, ValueError) and not isinstance(error, OSError):
        return HubError(f"{name}: the Hub rejected the files ({_one_line(error)})")
    if status is None:
        what = f"did not answer ({type(error).__name__}): {_CONNECTION_LOST}"
    elif status in advice:
        what = f"answered {status}: {advice[status]}"
    elif status >= 500:
        what = f"answered {status}: {_SERVER_FAILED}"
    else:
        what = f"answered {status} ({_one_line(error)}): fix that and repeat the command"
    end = "Files that were fetched are not fetched again." if reading else "Content that was sent is not sent again."
    return HubError(f"{name}: the Hub {what}. {end}")


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error or of its cause."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:40] + "..."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
