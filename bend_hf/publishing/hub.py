"""Pushes to the Hub; the only file that does.

A push compares every file with what stands there and commits what differs, once; a second push of the same files
makes no commit, and one that broke off can simply be run again. The token is huggingface_hub's own and is never read
into a message.

>>> PushFile(path="README.md", content=b"hello").n_bytes
5
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from bend_hf.errors import BendError, HubError
from bend_hf.publishing.eval_results import FOLDER, merged
from bend_hf.tables import n_bytes

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

RepoType: TypeAlias = Literal["model", "dataset", "space"]

_OURS: Final = "library_name: bend_hf"
_ANSWERS: Final = {
    401: "the token is missing, wrong or expired; run 'hf auth login' and try again",
    403: "the token may not write there; ask for write access, or take another --namespace",
    404: "there is no such repository, or the token may not see it; check --namespace and --repo",
    429: "the Hub asks for patience (too many requests); wait some minutes and run the same command again",
}
_SERVER: Final = "the Hub failed; run the same command again later"
_BROKEN: Final = "the connection broke; run the same command again"


@dataclass(frozen=True)
class PushFile:
    """One file to push.

    Attributes:
        path: Where it goes in the repository.
        content: Its bytes, or the file that holds them.
    """

    path: str
    content: bytes | Path

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Hash of its bytes, as the Hub's large-file storage names it."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Hash of its bytes as git names them."""
        digest = hashlib.sha1(b"blob %d\0" % self.n_bytes, usedforsecurity=False)
        digest.update(self.content if isinstance(self.content, bytes) else self.content.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Target:
    """A repository and what goes into it.

    Attributes:
        repo: ``owner/name``.
        repo_type: ``model``, ``dataset`` or ``space``.
        files: What goes in.
        message: The commit's title.
        space_sdk: For a space that has to be made: ``gradio`` or ``static``.
        mirrored: Folders in which remote files that are not among ``files`` are removed.
        create_pr: Whether to open a pull request on a repository that is there, instead of committing to one's own.
        own_card: Whether ``README.md`` may only replace a card that bend_hf made.
    """

    repo: str
    repo_type: RepoType
    files: tuple[PushFile, ...]
    message: str
    space_sdk: Literal["gradio", "static"] | None = None
    mirrored: tuple[str, ...] = ()
    create_pr: bool = False
    own_card: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.repo_type} {self.repo}"

    def lines(self) -> list[str]:
        """Each file with size and target, for people."""
        how = " as a pull request" if self.create_pr else ""
        head = f"{self.name}{how}: {len(self.files)} files, {n_bytes(sum(file.n_bytes for file in self.files))}"
        return [head, *(f"  {file.path}  {n_bytes(file.n_bytes)}" for file in self.files)]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did.

    Attributes:
        target: Where to.
        changed: Paths that were added, replaced or removed; empty where all stood there already.
        url: The commit, the pull request, or the repository.
    """

    target: Target
    changed: tuple[str, ...]
    url: str


def push(targets: Sequence[Target], *, public: bool = False) -> Iterator[Pushed]:
    """Pushes one repository after the other; what is done stays done if a later one fails.

    Args:
        targets: Where what goes.
        public: Whether repositories are made public; otherwise new ones are private and old ones stay as they are.

    Raises:
        HubError: The Hub said no or could not be reached; run it again, what stands there is not sent twice.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise HubError("no token of the Hub is stored here; run 'hf auth login' first")
    api = HfApi()
    for target in targets:
        with _explained(target):
            yield _push(api, target, public=public)


@contextmanager
def _explained(target: Target) -> Iterator[None]:
    """Turns what huggingface_hub raises into one sentence: what failed, where, what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # httpx under one name or another, by the release of huggingface_hub: the root of all that its client raises
    roots = [base for base in HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    transport = cast(type[Exception], roots[0])
    try:
        yield
    except BendError:
        raise
    except OfflineModeIsEnabled as error:
        raise HubError(f"{target.name}: HF_HUB_OFFLINE is set; unset it to push") from error
    except (transport, OSError, RuntimeError, ValueError) as error:
        status = _status(error)
        if status is None and isinstance(error, ValueError):
            raise HubError(f"{target.name}: the Hub would not take it ({_line(error)})") from error
        what = _BROKEN if status is None else _ANSWERS.get(status, _SERVER if status >= 500 else "mend that and retry")
        said = f"answered {status}" if status else f"did not answer ({type(error).__name__})"
        detail = f" ({_line(error)})" if status is not None and status not in _ANSWERS and status < 500 else ""
        raise HubError(
            f"{target.name}: the Hub {said}{detail}: {what}. Nothing is lost; what was sent is not sent twice"
        ) from error


def _status(error: BaseException | None) -> int | None:
    """HTTP status of an error or of what caused it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _push(api: HfApi, target: Target, *, public: bool) -> Pushed:
    if not target.create_pr:
        api.create_repo(
            target.repo,
            repo_type=target.repo_type,
            private=not public,
            exist_ok=True,
            space_sdk=target.space_sdk,
        )
    info = api.repo_info(target.repo, repo_type=target.repo_type)
    if public and not target.create_pr and info.private:
        api.update_repo_settings(target.repo, repo_type=target.repo_type, private=False)
    revision = _open_request(api, target) if target.create_pr else None
    there = _tree(api, target, revision)
    target = replace(target, files=tuple(_fitted(api, target, file, there, revision) for file in target.files))
    operations = _operations(target, there)
    if not operations:
        return Pushed(target=target, changed=(), url=_url(api, target))
    done = api.create_commit(
        target.repo,
        operations,
        commit_message=target.message,
        repo_type=target.repo_type,
        revision=revision,
        create_pr=target.create_pr and revision is None,
    )
    return Pushed(
        target=target,
        changed=tuple(operation.path_in_repo for operation in operations),
        url=str(done.pr_url or done.commit_url),
    )


def _url(api: HfApi, target: Target) -> str:
    folder = {"model": "", "dataset": "datasets/", "space": "spaces/"}[target.repo_type]
    return f"{api.endpoint}/{folder}{target.repo}"


def _open_request(api: HfApi, target: Target) -> str | None:
    """The branch of our own pull request of this title that is still open."""
    me = api.whoami()["name"]
    for discussion in api.get_repo_discussions(
        target.repo, repo_type=target.repo_type, author=me, discussion_type="pull_request", discussion_status="open"
    ):
        if discussion.title == target.message:
            return f"refs/pr/{discussion.num}"
    return None


def _tree(api: HfApi, target: Target, revision: str | None) -> dict[str, tuple[str, str | None]]:
    """Git hash, and sha256 where it is stored as a large file, of each file that stands there."""
    from huggingface_hub import RepoFile

    entries = api.list_repo_tree(target.repo, recursive=True, repo_type=target.repo_type, revision=revision)
    return {
        entry.path: (entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def _fitted(
    api: HfApi, target: Target, file: PushFile, there: dict[str, tuple[str, str | None]], revision: str | None
) -> PushFile:
    """The file as it has to stand beside what is there: scores of other boards kept, foreign cards not touched."""
    is_scores = file.path.startswith(f"{FOLDER}/")
    is_card = target.own_card and file.path == "README.md"
    if file.path not in there or not (is_scores or is_card):
        return file
    path = api.hf_hub_download(target.repo, file.path, repo_type=target.repo_type, revision=revision)
    old = Path(path).read_text(encoding="utf-8")
    if is_card and _OURS not in old:
        raise HubError(
            f"{target.name} has a card that bend_hf did not make; it is not replaced. Take another --repo, or add the "
            "scores alone with --create-pr"
        )
    if not is_scores:
        return file
    new = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    return PushFile(file.path, merged(old, new.decode(), file.path).encode())


def _operations(
    target: Target, there: dict[str, tuple[str, str | None]]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for file in target.files:
        blob_id, sha256 = there.get(file.path, (None, None))
        if (file.sha256 != sha256) if sha256 else (file.blob_id != blob_id):
            content = file.content if isinstance(file.content, bytes) else str(file.content)
            operations.append(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=content))
    wanted = {file.path for file in target.files}
    for path in sorted(there):
        if path not in wanted and any(path.startswith(f"{folder}/") for folder in target.mirrored):
            operations.append(CommitOperationDelete(path_in_repo=path))
    return operations
