"""Download files from outside the Hub: resumed, checked, and under their name only when complete.

What has arrived is kept in ``<name>.part``, and the next try or the next run resumes from it. ``<name>.part.json`` says
which version of the file it is a part of (ETag, Last-Modified, size), so that two versions are never mixed.

>>> RemoteFile(name="config.json", url="https://example.org/config.json").n_bytes is None
True
"""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.errors import DownloadError, MissingFileError
from bend_hf.files import atomic_path, parse_json
from bend_hf.lease import Watch, take

logger = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 60.0
_LONGEST_WAIT_S: Final = 300.0  # that a server may ask for, in all
_SLOW_S: Final = 60.0
_SLOW_BYTES: Final = 60_000  # in that time: 1 kB/s
_LOOK_S: Final = 1.0
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
# What a server says when it may do better later: timeout, too early, too many requests, and its own failures.
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to download.

    Attributes:
        name: File name in the target folder.
        url: Address, http or https.
        n_bytes: Size, if known.
        sha256: Checksum in hexadecimal, if known.

    Raises:
        DownloadError: The address is not http or https.
    """

    name: str
    url: str
    n_bytes: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise DownloadError(f"cannot download {self.url!r}; expected an address that begins with https://")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often to try, and how long to wait.

    Attributes:
        attempts: Number of tries, 1 or more; a try that brought new bytes does not count.
        first_wait_s: Seconds before the second try, doubled for each later one.
        sleep: Function that waits.
        now: Function that gives the seconds since 1970, to read a date in ``Retry-After``.
        clock: Function that gives the seconds since some moment, to measure the speed.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic


Progress: TypeAlias = Callable[[int, int | None], None]


class _PassingError(Exception):
    """A failure that another try may not have."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True)
class _Version:
    """Which version of a file a server sends.

    Attributes:
        etag: Its ETag, if that is a strong one.
        last_modified: When it was changed, as the server wrote it.
        n_bytes: Size of the whole file.
    """

    etag: str | None = None
    last_modified: str | None = None
    n_bytes: int | None = None

    @property
    def validator(self) -> str | None:
        """What ``If-Range`` can hold."""
        return self.etag or self.last_modified

    def continues(self, known: _Version) -> bool:
        """Return whether an answer of this version may be appended to a part of the known one.

        A partial answer may leave out facts that the server gave with the whole file, but never its ETag.
        """
        if known.validator is not None and self.etag is not None and self.etag != known.etag:
            return False
        pairs = zip(asdict(self).values(), asdict(known).values(), strict=True)
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


def download(file: RemoteFile, folder: Path, *, retry: Retry | None = None, progress: Progress | None = None) -> Path:
    """Download a file unless it exists; of several processes one downloads it, and the others wait.

    An existing file is trusted if its size is the declared one; its checksum was checked before it got its name.

    Args:
        file: The file.
        folder: The target folder; created if it is missing.
        retry: How often to try.
        progress: Called with the number of bytes that have arrived, and the total if the server says it.

    Returns:
        The complete and checked file.

    Raises:
        DownloadError: The server does not have the file, keeps failing, is too slow, asks to wait for long, or sends
            another file; or the file cannot be written.
    """
    target = folder / file.name
    one = _Download(file, folder / f"{file.name}.part", retry or Retry(), progress)
    lock, watch = folder / f"{file.name}.lock", Watch()
    try:
        while not (target.is_file() and file.n_bytes in (None, target.stat().st_size)):
            folder.mkdir(parents=True, exist_ok=True)
            lease = take(lock, watch)
            if lease is None:
                time.sleep(_LOOK_S)
                continue
            with lease:
                one.run()
                one.part.replace(target)
        _sweep(lock, watch, lambda: one.left(lock))
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written ({error}); free some space or give another folder, and repeat the command. "
            f"What has arrived is kept in {one.part}"
        ) from error
    return target


def _sweep(lock: Path, watch: Watch, left: Callable[[], list[Path]]) -> None:
    """Remove what killed processes left next to a complete file; nobody else needs it."""
    with contextlib.suppress(OSError):  # a folder that cannot be written
        lease = take(lock, watch) if lock.exists() or left() else None
        if lease is not None:
            with lease:
                for path in left():
                    path.unlink(missing_ok=True)


class _Download:
    """The download of one file into its part file."""

    def __init__(self, file: RemoteFile, part: Path, retry: Retry, progress: Progress | None) -> None:
        self.file, self.part, self._retry, self._progress = file, part, retry, progress
        self.note = part.with_name(f"{part.name}.json")
        self._waited_s = 0.0

    def left(self, lock: Path) -> list[Path]:
        """Return the files that no complete download needs: what its part is of, and unfinished notes and leases."""
        unfinished = (f".{glob.escape(self.note.name)}.part*", f"{glob.escape(lock.name)}.*")
        return [path for pattern in (glob.escape(self.note.name), *unfinished) for path in lock.parent.glob(pattern)]

    def run(self) -> None:
        """Download what is missing until the part file is complete and checked."""
        failures, most_bytes = 0, _size(self.part)
        while True:
            try:
                self._check(md5=self._fetch())
                break
            except _PassingError as error:
                advanced = _size(self.part) > most_bytes
                most_bytes = max(most_bytes, _size(self.part))
                failures = 1 if advanced else failures + 1
                if failures >= self._retry.attempts:
                    raise DownloadError(
                        f"gave up on {self.file.url} after {failures} tries without progress: {error}; {self._kept()}"
                    ) from error
                self._wait(error, failures)
        with self.part.open("rb") as complete:
            os.fsync(complete.fileno())

    def _kept(self) -> str:
        return f"what has arrived is kept in {self.part}. Repeat the command to resume"

    def _wait(self, error: _PassingError, failures: int) -> None:
        wait_s = min(self._retry.first_wait_s * 2 ** (failures - 1), _LONGEST_WAIT_S)
        if error.wait_s is not None:
            wait_s = error.wait_s
            if self._waited_s + wait_s > _LONGEST_WAIT_S:
                raise DownloadError(
                    f"gave up on {self.file.url}: {error} and asks to wait {wait_s:,.0f} s, after "
                    f"{self._waited_s:,.0f} s already; at most {_LONGEST_WAIT_S:.0f} s are waited in all. Repeat the "
                    f"command after that time to resume; what has arrived is kept in {self.part}"
                ) from error
            self._waited_s += wait_s
        logger.warning("%s: %s; next try in %.0f s", self.file.url, error, wait_s)
        self._retry.sleep(wait_s)

    def _known(self) -> _Version:
        """Read which version the part file belongs to."""
        try:
            known = _Version(**parse_json(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return _Version()
        texts = all(isinstance(one, str | None) for one in (known.etag, known.last_modified))
        return known if texts and isinstance(known.n_bytes, int | None) else _Version()

    def _start_over(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _fetch(self) -> bytes | None:
        """Download what is missing into the part file; return the md5 of the whole file if the server says it."""
        have, known = _size(self.part), self._known()
        if self.file.n_bytes is not None and have == self.file.n_bytes and self.file.sha256 is not None:
            return None
        too_long = self.file.n_bytes is not None and have > self.file.n_bytes
        # Without a validator only a known checksum tells whether both pieces are of one version.
        if have and (too_long or (known.validator is None and self.file.sha256 is None)):
            self._start_over()
            have = 0
        request = urllib.request.Request(self.file.url, headers={"Accept-Encoding": "identity"})  # noqa: S310  http(s) only, see RemoteFile
        if have:
            request.add_header("Range", f"bytes={have}-")
            if known.validator is not None:
                request.add_header("If-Range", known.validator)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  http(s) only, see RemoteFile
                return self._take(answer, have, known)
        except urllib.error.HTTPError as error:
            self._refused(error, have, known)
            return None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, _LocalError):
                raise error.error from error
            raise _PassingError(f"the connection broke ({type(error).__name__}: {error})") from error

    def _take(self, answer: http.client.HTTPResponse, have: int, known: _Version) -> bytes | None:
        """Store the body of an answer."""
        resumed = answer.status == 206
        promised = self._length(answer.headers)
        md5 = self._md5(answer.headers)
        self._refuse_encoded(answer.headers)
        version = _version(answer.headers, resumed=resumed, promised=promised)
        if resumed and (_starts_at(answer.headers.get("Content-Range")) != have or not version.continues(known)):
            self._start_over()
            raise _PassingError(f"the server sent another range or version than from byte {have} on; starting over")
        with _local():
            if not resumed:
                self._start_over()
                have = 0
                with atomic_path(self.note) as written:
                    written.write_text(json.dumps(asdict(version)), encoding="utf-8")
        self._copy(answer, have, promised)
        checkable = (promised, version.n_bytes, self.file.n_bytes, self.file.sha256, md5)
        if all(one is None for one in checkable) and not answer.chunked:
            logger.warning(
                "%s: the server says neither the size nor a checksum of %s; %s bytes arrived, and whether they are "
                "all is not known",
                *(self.file.url, self.file.name, f"{_size(self.part):,}"),
            )
        if version.n_bytes is not None and _size(self.part) < version.n_bytes:
            raise _PassingError(f"{_size(self.part)} of {version.n_bytes} bytes arrived")
        return md5

    def _copy(self, answer: http.client.HTTPResponse, have: int, promised: int | None) -> None:
        """Append the body of an answer to the part file, and check its length and its speed."""
        total = None if promised is None else have + promised
        copied, began, before = 0, self._retry.clock(), 0
        with _local():
            out = self.part.open("ab" if have else "wb")
        with out:
            while block := answer.read1(_BLOCK_BYTES):
                with _local():
                    out.write(block)
                copied += len(block)
                if self._progress is not None:
                    self._progress(have + copied, total)
                now = self._retry.clock()
                if now - began >= _SLOW_S:
                    if copied - before < _SLOW_BYTES:
                        raise DownloadError(
                            f"gave up on {self.file.url}: {copied - before:,} bytes arrived in {now - began:.0f} s, "
                            f"expected {_SLOW_BYTES:,} at least; {self._kept()}"
                        )
                    began, before = now, copied
            with _local():
                out.flush()
        if promised is not None and copied != promised:
            raise _PassingError(f"{copied} of {promised} bytes arrived")

    def _refused(self, error: urllib.error.HTTPError, have: int, known: _Version) -> None:
        """Handle an answer that is an error; return if it says that nothing is missing."""
        if error.code == 416 and have:  # nothing is missing: the file is complete, or it is another file
            total = _total(error.headers.get("Content-Range"))
            version = _version(error.headers, resumed=True, promised=None)
            if total == have and version.continues(known):
                return
            self._start_over()
            raise _PassingError(f"the server has no bytes from {have} on; starting over") from error
        if error.code in _PASSING:
            wait_s = _retry_after_s(error.headers.get("Retry-After"), self._retry)
            raise _PassingError(f"the server answered {error.code} {error.reason}", wait_s=wait_s) from error
        kind = MissingFileError if error.code in (404, 410) else DownloadError
        raise kind(
            f"the server answered {error.code} {error.reason} for {self.file.url}; check whether {self.file.name} has "
            f"moved, or download it by hand into {self.part.parent}"
        ) from error

    def _length(self, headers: Message) -> int | None:
        """Return the promised number of bytes of an answer's body."""
        text = headers.get("Content-Length")
        if text is None or "chunked" in (headers.get("Transfer-Encoding") or "").lower():
            return None
        if _NUMBER.fullmatch(text.strip()) is None:
            raise DownloadError(
                f"{self.file.url} ({self.file.name}) has Content-Length {text!r}; expected a number of bytes. Tell the "
                "owner of the server, or give another address"
            )
        return int(text)

    def _md5(self, headers: Message) -> bytes | None:
        """Return the md5 in ``crc32c=...,md5=...``, as Google's storage sends it."""
        for entry in ",".join(headers.get_all("x-goog-hash") or []).split(","):
            name, _, value = entry.strip().partition("=")
            if name != "md5":
                continue
            try:
                md5 = base64.b64decode(value, validate=True)
            except ValueError:
                md5 = b""
            if len(md5) != hashlib.md5(usedforsecurity=False).digest_size:
                raise DownloadError(
                    f"{self.file.url} ({self.file.name}) has x-goog-hash {entry.strip()!r}; expected an md5 in base64. "
                    "Tell the owner of the server, or give another address"
                )
            return md5
        return None

    def _refuse_encoded(self, headers: Message) -> None:
        """Refuse a body that is packed for the transfer; a packed file that is announced so is itself."""
        encoding = (headers.get("Content-Encoding") or "identity").strip().lower()
        packed_file = encoding in ("gzip", "x-gzip") and urllib.parse.urlsplit(self.file.url).path.endswith(".gz")
        if encoding != "identity" and not packed_file:
            raise DownloadError(
                f"{self.file.url} ({self.file.name}) arrives with Content-Encoding {encoding!r} although the plain "
                "file was asked for. Download it by hand, or give another address"
            )

    def _check(self, *, md5: bytes | None) -> None:
        """Raise, and remove the part file, if it is not the declared file."""
        file, size = self.file, _size(self.part)
        if file.n_bytes is not None and size < file.n_bytes:
            raise _PassingError(f"{size} of {file.n_bytes} bytes arrived")
        if file.n_bytes is not None and size > file.n_bytes:
            self._start_over()
            raise DownloadError(
                f"{file.url} gave {size} bytes; expected {file.n_bytes}. The server has another file than declared"
            )
        if md5 is not None:
            arrived = self._digest("md5")
            if arrived != md5.hex():
                self._start_over()
                raise DownloadError(
                    f"{file.url} arrived with md5 {arrived}; the server says {md5.hex()}. It was damaged or changed "
                    "during the download; try again"
                )
        if file.sha256 is None:
            return
        found = self._digest("sha256")
        if found != file.sha256.lower():
            self._start_over()
            raise DownloadError(
                f"{file.url} has sha256 {found}; expected {file.sha256}. It has changed or was damaged; try "
                "again, and check the declaration if it happens twice"
            )

    def _digest(self, name: str) -> str:
        with self.part.open("rb") as data:
            return hashlib.file_digest(data, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()


class _LocalError(OSError):
    """A failure of this machine's disk, which another attempt would not fix."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _local() -> Iterator[None]:
    """Tell an error of the disk from one of the connection."""
    try:
        yield
    except OSError as error:
        raise _LocalError(error) from error


def _version(headers: Message, *, resumed: bool, promised: int | None) -> _Version:
    """Read the version from an answer's headers; only a strong ETag names the bytes (RFC 9110, 13.1.5)."""
    etag = headers.get("ETag")
    n_bytes = _total(headers.get("Content-Range")) if resumed else promised
    return _Version(
        etag=None if etag is None or etag.startswith("W/") else etag,
        last_modified=headers.get("Last-Modified"),
        n_bytes=_total(headers.get("x-goog-stored-content-length")) if n_bytes is None else n_bytes,
    )


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _starts_at(content_range: str | None) -> int | None:
    """Return the first byte of ``bytes 5-9/10``."""
    first = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if _NUMBER.fullmatch(first) else None


def _total(content_range: str | None) -> int | None:
    """Return the total of ``bytes */10``."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if _NUMBER.fullmatch(total) else None


def _retry_after_s(value: str | None, retry: Retry) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or a date."""
    if value is None:
        return None
    if _NUMBER.fullmatch(value.strip()):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - retry.now())
    except (ValueError, OverflowError):
        return None
