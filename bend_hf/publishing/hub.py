"""Push files to the Hub. No other file of the package sends anything.

Each repository gets at most one commit per push. `HfApi.create_commit` leaves out files whose content is already
there, so a second push of the same files makes no commit, and an interrupted push can simply be repeated. The token
is the one that huggingface_hub stores; it never appears in a message.

>>> UploadFile(path="README.md", content=b"hello").n_bytes
5
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from bend_hf.errors import BendError, HubError
from bend_hf.publishing.eval_results import FOLDER, entry_keys, merged
from bend_hf.tables import n_bytes

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RepoType: TypeAlias = Literal["model", "dataset", "space"]

_MADE_BY_BEND_HF: Final = "library_name: bend_hf"
_ADVICE: Final = {
    401: "the token is missing, wrong or expired; run 'hf auth login' and try again",
    403: "the token has no write access there; ask for it, or give another --namespace",
    404: "the repository does not exist, or the token cannot see it; check --namespace and --repo",
    429: "too many requests; wait some minutes and repeat the command",
}
_SERVER_FAILED: Final = "the Hub failed; repeat the command later"
_CONNECTION_LOST: Final = "the connection was lost; repeat the command"


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
        create_pr: Whether to open a pull request on an existing repository instead of committing to one's own.
        own_card: Whether ``README.md`` may replace only a card that bend_hf wrote.
    """

    repo: str
    repo_type: RepoType
    files: tuple[UploadFile, ...]
    message: str
    space_sdk: Literal["gradio", "static"] | None = None
    mirrored: tuple[str, ...] = ()
    create_pr: bool = False
    own_card: bool = False

    @property
    def name(self) -> str:
        """Name of the repository in messages."""
        return f"{self.repo_type} {self.repo}"

    def lines(self) -> list[str]:
        """List the repository and each file with its size."""
        how = " as a pull request" if self.create_pr else ""
        head = f"{self.name}{how}: {len(self.files)} files, {n_bytes(sum(file.n_bytes for file in self.files))}"
        return [head, *(f"  {file.path}  {n_bytes(file.n_bytes)}" for file in self.files)]


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
        with _explained(upload):
            yield _push(api, upload, public=public)


def _push(api: HfApi, upload: Upload, *, public: bool) -> PushResult:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if not upload.create_pr:
        api.create_repo(
            upload.repo,
            repo_type=upload.repo_type,
            private=not public,
            exist_ok=True,
            space_sdk=upload.space_sdk,
        )
    revision = _open_pull_request(api, upload) if upload.create_pr else None
    before = api.repo_info(upload.repo, repo_type=upload.repo_type, revision=revision)
    if public and not upload.create_pr and before.private:
        api.update_repo_settings(upload.repo, repo_type=upload.repo_type, private=False)
    remote = set(api.list_repo_files(upload.repo, repo_type=upload.repo_type, revision=revision))
    files = [_merged_with_remote(api, upload, file, remote, revision) for file in upload.files]
    _check_one_value_each(api, upload, remote, revision)
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
    )
    changed = done.oid != before.sha  # create_commit returns the last commit if nothing differs
    url = str(done.pr_url or done.commit_url) if changed else _repository_url(api, upload)
    return PushResult(upload=replace(upload, files=tuple(files)), changed=changed, url=url)


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


def _merged_with_remote(
    api: HfApi, upload: Upload, file: UploadFile, remote: Collection[str], revision: str | None
) -> UploadFile:
    """The file with the remote scores of other task ids kept. Raise if it would replace a card of someone else."""
    is_scores = _is_scores(file.path)
    is_card = upload.own_card and file.path == "README.md"
    if file.path not in remote or not (is_scores or is_card):
        return file
    old = _remote_text(api, upload, file.path, revision)
    if is_card and _MADE_BY_BEND_HF not in old:
        raise HubError(
            f"{upload.name} has a card that bend_hf did not write, and it is not replaced. Give another --repo, or "
            "add only the scores with --create-pr."
        )
    return UploadFile(file.path, merged(old, file.read().decode(), file.path).encode()) if is_scores else file


def _check_one_value_each(api: HfApi, upload: Upload, remote: Collection[str], revision: str | None) -> None:
    """Raise if another score file of the repository holds a value of a leaderboard that is pushed."""
    pushed = {
        key for file in upload.files if _is_scores(file.path) for key in entry_keys(_utf8(file, upload), file.path)
    }
    for path in sorted(path for path in remote if pushed and _is_scores(path)):
        if any(file.path == path for file in upload.files):
            continue
        try:
            there = entry_keys(_remote_text(api, upload, path, revision), path)
        except BendError:
            continue  # a file of another form holds no value
        for dataset, task_id in sorted(pushed & there):
            raise HubError(
                f"{upload.name}: {path} already holds a value for {task_id} of {dataset}, and a leaderboard takes one. "
                "Remove that entry there and repeat the command."
            )


def _is_scores(path: str) -> bool:
    return path.startswith(f"{FOLDER}/") and path.endswith((".yaml", ".yml"))


def _remote_text(api: HfApi, upload: Upload, path: str, revision: str | None) -> str:
    """Text of a remote file with its line ends as they are."""
    local = api.hf_hub_download(upload.repo, path, repo_type=upload.repo_type, revision=revision)
    return _utf8(UploadFile(path, Path(local)), upload)


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
def _explained(upload: Upload) -> Iterator[None]:
    """Turn an error of huggingface_hub into one that says what failed, where, and what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The root of all errors of the HTTP client; it is httpx under one name or another, by huggingface_hub's release.
    roots = [base for base in HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    transport_error = cast(type[Exception], roots[0])
    try:
        yield
    except BendError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError(f"{upload.name}: HF_HUB_OFFLINE is set; unset it to push") from error
    except (transport_error, OSError, RuntimeError, ValueError) as error:
        raise _hub_error(upload, error) from error


def _hub_error(upload: Upload, error: Exception) -> HubError:
    status = _status(error)
    if status is None and isinstance(error, ValueError):
        return HubError(f"{upload.name}: the Hub rejected the files ({_one_line(error)})")
    if status is None:
        what = f"did not answer ({type(error).__name__}): {_CONNECTION_LOST}"
    elif status in _ADVICE:
        what = f"answered {status}: {_ADVICE[status]}"
    elif status >= 500:
        what = f"answered {status}: {_SERVER_FAILED}"
    else:
        what = f"answered {status} ({_one_line(error)}): fix that and repeat the command"
    return HubError(f"{upload.name}: the Hub {what}. Content that was sent is not sent again.")


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error or of its cause."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
