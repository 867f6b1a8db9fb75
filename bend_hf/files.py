"""Files that are written whole or not at all, checksums, and the folders that come with the package.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> write_text(folder / "new" / "a.txt", "one").read_text()
'one'
>>> with atomic_path(folder / "large.bin") as part:
...     n_written = part.write_bytes(b"ACGT")
>>> sorted(path.name for path in folder.iterdir())
['large.bin', 'new']
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat as stat_modes
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeAlias

from bend_hf.errors import InputError, RecordError, SourceError
from bend_hf.tables import printable
from bend_hf.types import Json

Asset: TypeAlias = Literal["metrics", "model_cards", "accelerate_configs", "dataset_scripts", "sample", "pretrained"]

# Folders in the output folder of a run that hold what it resumes from, until its record is written.
TRAINING_STATE: Final = ".checkpoints"
SCORED_VARIANTS: Final = ".scored_variants"


def asset_folder(name: Asset) -> Path:
    """Find a folder that comes with the package: at the top of a checkout, inside the package in a wheel.

    Raises:
        SourceError: Neither place holds it; the installation is broken.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_assets" / name, package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SourceError(f"the folder {name!r} of bend_hf is missing below {package}; install the package again")


def cache_folder(name: str) -> Path:
    """Name a folder below ``$BEND_HF_CACHE``, by default below ``~/.cache/bend_hf``; it may not exist yet."""
    named = os.environ.get("BEND_HF_CACHE")
    if named:
        return Path(named) / name
    try:
        return Path.home() / ".cache" / "bend_hf" / name
    except RuntimeError:  # a process without a home folder
        return Path(tempfile.gettempdir()) / "bend_hf" / name


_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)  # link(2)


@contextlib.contextmanager
def atomic_path(path: Path, *, overwrite: bool = True, durable: bool = False) -> Iterator[Path]:
    """Write a file under a temporary name that becomes ``path`` when the block ends without an error.

    Readers see the old file or the new one, never a part of it. After an error nothing is left behind; a process that
    was killed leaves a file named ``.<name>.part...`` next to ``path``.

    Args:
        path: The file to write; its folder is made.
        overwrite: Replace a file of that name. Otherwise the first of several writers wins.
        durable: Wait until the bytes and the name are on the disk, so that they survive a power cut.

    Yields:
        The temporary path. The block must create a file there.

    Raises:
        FileExistsError: ``overwrite`` is False and ``path`` exists.
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        yield part
        if stat_modes.S_IMODE(part.stat().st_mode) == _OWNER_ONLY:  # safetensors writes so, whatever the umask is
            part.chmod(_mode_of_new_files())
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        if overwrite:
            part.replace(path)
        else:
            _link(part, path)
        if durable:
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def replace_folder(new: Path, target: Path) -> None:
    """Give a finished folder its name; the folder that had this name is removed last.

    A process that was killed meanwhile leaves the earlier folder as ``.NAME.old...`` next to the target.

    Raises:
        OSError: The folders are not on one disk, or cannot be renamed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old{os.getpid()}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


_OWNER_ONLY: Final = 0o600


@cache
def _mode_of_new_files() -> int:
    """Return the permissions that the umask leaves to new files; it can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def _link(part: Path, path: Path) -> None:
    """Give a finished file its name unless another file has it."""
    exists = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        os.link(part, path)
    except FileExistsError:
        # A network file system may answer a repeated request for a link that the first request made.
        if not path.samefile(part):
            raise exists from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise exists from None
        part.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, on file systems that support it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a ``RecordError`` that names the file and says what to do.

    Raises:
        RecordError: The block could not write ``path``.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FileExistsError) and error.filename == str(path):
            raise RecordError(f"{path} exists and is never overwritten; give another --out") from error
        if not isinstance(error, OSError) and disk_error(error) is None:
            raise
        raise RecordError(f"{path} cannot be written ({error}); free some space or give another --out") from error


_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)  # full, or failing


def disk_error(error: BaseException | None) -> OSError | None:
    """Find what a full or failing disk refused behind an error; libraries raise errors of their own.

    >>> disk_error(ValueError("I/O error: No space left on device (os error 28)"))
    OSError(28, 'No space left on device')
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be the context of its own cause
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _DISK:
            return error
        number = re.search(r"\(os error (\d{1,4})\)", str(error))  # as Rust writes it, for safetensors
        if number is not None and int(number[1]) in _DISK:
            return OSError(int(number[1]), os.strerror(int(number[1])))
        error = error.__cause__ or error.__context__
    return None


def free_space(folders: Iterable[Path]) -> str:
    """Say how much space each folder has, or will have once it is made.

    >>> re.fullmatch(r"[0-9.]+ GB for /", free_space([Path("/"), Path("/")])) is not None
    True
    """
    free = []
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(OSError):
            there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
            free.append(f"{shutil.disk_usage(there).free / 1e9:.2f} GB for {folder}")
    return ", ".join(free)


UTF8_MARK: Final = b"\xef\xbb\xbf"  # written by editors of Windows; not part of the text


def read_text(path: Path) -> str:
    """Read a text file that a user wrote: UTF-8, with or without a byte order mark.

    Raises:
        OSError: The file cannot be read.
        InputError: It is not UTF-8; the message names the line.
    """
    check_regular(path)
    return decode_utf8(path.read_bytes().removeprefix(UTF8_MARK), path)


def check_regular(path: Path) -> None:
    """Check that a path is not a named pipe or a socket, on which reading may wait forever.

    What a shell passes in ``/dev/fd`` is accepted.

    Raises:
        OSError: It is one.
    """
    mode = path.stat().st_mode if path.exists() else stat_modes.S_IFREG
    if (stat_modes.S_ISFIFO(mode) or stat_modes.S_ISSOCK(mode)) and path.parts[:2] not in (("/", "dev"), ("/", "proc")):
        raise OSError(errno.EINVAL, "it is a named pipe or a socket; expected a file", str(path))


def decode_utf8(raw: bytes, path: Path, *, first_line: int = 1) -> str:
    """Decode the bytes of a text file.

    Args:
        raw: The bytes.
        path: The file that they are from.
        first_line: Number of the first line of ``raw`` in the file.

    Raises:
        InputError: They are not UTF-8.

    >>> decode_utf8("café".encode(), Path("a.bed"))
    'café'
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + raw.count(b"\n", 0, error.start)
        raise InputError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8, which is expected. "
            "Save the file as UTF-8 (iconv -f latin1 -t utf-8)"
        ) from None


_LONGEST_PART: Final = 60  # bytes; two such parts, seed, time and a temporary ending stay below 255, Linux's limit


def file_name(text: str) -> str:
    """Make a safe part of a file name from the name of a task or a model; a long one ends with a hash of the whole."""
    safe = re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "x"
    if len(safe.encode()) <= _LONGEST_PART:
        return safe
    digest = hashlib.sha256(safe.encode()).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_PART - 9].decode(errors='ignore')}-{digest}"


def utf8(text: str) -> str:
    r"""Show the bytes of a name that are not UTF-8, which Python reads as halves of surrogate pairs, as escapes.

    >>> print(utf8("a" + chr(0xdcff)))
    a\udcff
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically and return its path; an older file of the name is replaced.

    Raises:
        RecordError: It cannot be written.
    """
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a binary file atomically and return its path; an older file of the name is replaced.

    Raises:
        RecordError: It cannot be written.
    """
    with explain_write_errors(path), atomic_path(path) as part:
        part.write_bytes(content)
    return path


_MOST_LEVELS: Final = 200  # of nesting; from Python 3.12 on json.loads allows thousands, which other code does not


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401  # as json.loads; the caller checks what it is
    """Parse JSON that others may have written; ``json.loads`` raises other errors for what is nested too deeply.

    Raises:
        ValueError: It is not JSON, is nested too deeply or holds a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    n_opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if n_opened > _MOST_LEVELS and _is_deeper(value, _MOST_LEVELS):
        raise ValueError("it is nested too deeply")
    return value


def _is_deeper(value: Any, n_levels: int) -> bool:  # noqa: ANN401  # any JSON
    """Whether lists and dicts are nested in more than a number of levels."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(n_levels):
        inner = (one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer))
        level = [one for one in inner if isinstance(one, dict | list)]
    return bool(level)


def json_sha256(content: Json) -> str:
    """Hash JSON content in hexadecimal, whatever the order of its keys.

    Raises:
        ValueError: A number is not finite, which JSON does not have.

    >>> json_sha256({"a": 1, "b": 2}) == json_sha256({"b": 2, "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


_takes_notes: ContextVar[bool] = ContextVar("_takes_notes", default=True)


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Remember no hash on disk until the block ends, for what must write nothing."""
    before = _takes_notes.set(False)
    try:
        yield
    finally:
        _takes_notes.reset(before)


_SETTLED_NS: Final = 2_000_000_000  # a file changed later than this may change again within one tick of its clock


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash a file's bytes in hexadecimal.

    Hashing a genome of three gigabytes takes seconds. A note in the user's cache folder therefore remembers the hash
    of a path, size, inode, times of modification and change (the last of which no tool can set back), and of 66 blocks
    of the content, in case a clock was wrong. If the cache cannot be read or written, the file is hashed each time.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(path).resolve()
    with path.open("rb") as file:
        state = state_of(file)
        key = [os.fsencode(path).decode("utf-8", "backslashreplace"), *state]
        note = cache_folder("sha256") / (hashlib.sha256(os.fsencode(path)).hexdigest()[:32] + ".json")
        remembered = _read_note(note)
        if remembered is not None and remembered[0] == key:
            return remembered[1]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        is_settled = time.time_ns() - max(state.modified_ns, state.changed_ns) > _SETTLED_NS
        if _takes_notes.get() and is_settled and state_of(file) == state:
            with contextlib.suppress(OSError), atomic_path(note) as part:
                part.write_text(json.dumps({"file": key, "sha256": digest}), encoding="utf-8")
    return digest


class FileState(NamedTuple):
    """What tells two states of a file apart without reading all of it.

    Attributes:
        size_bytes: Its size.
        inode: Its number on the file system, which differs if another file took its name.
        modified_ns: Time of the last modification, in nanoseconds, which any tool can set back.
        changed_ns: Time of the last change of content or properties, which no tool can set back.
        sample_sha256: Hash of the first and the last block, and of 64 blocks whose places follow from the size.
    """

    size_bytes: int
    inode: int
    modified_ns: int
    changed_ns: int
    sample_sha256: str

    def holds_what(self, other: FileState) -> bool:
        """Whether the file was not written between two looks during a run; a changed permission does not count."""
        return self._replace(changed_ns=0) == other._replace(changed_ns=0)


def state_of(file: BinaryIO) -> FileState:
    """Look at an open file: less than a millisecond, whatever its size."""
    stat = os.fstat(file.fileno())
    return FileState(stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, _sample_sha256(file, stat.st_size))


def file_state(path: Path) -> FileState:
    """Look at a file by its name; see ``state_of``.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return state_of(file)


def file_states(paths: Iterable[Path]) -> dict[Path, FileState]:
    """Look at files before they are read; what is no file or cannot be read is left out, for the reader to explain."""
    states = {}
    for path in paths:
        with contextlib.suppress(OSError):
            if path.is_file():
                states[path] = file_state(path)
    return states


def check_unchanged(states: Mapping[Path, FileState]) -> None:
    """Check that files are those that were read, so that their hashes name what results hold.

    Args:
        states: From ``file_states``, before they were read.

    Raises:
        InputError: A file changed since.
    """
    for path, before in states.items():
        after = file_states([path]).get(path)
        if after is None or not after.holds_what(before):
            raise InputError(
                f"{path} changed while it was read; expected a file that stays as it is. Repeat the command when "
                "nothing writes it"
            )


_BLOCK_BYTES: Final = 4096
_N_BLOCKS: Final = 64


def _sample_sha256(file: BinaryIO, size: int) -> str:
    """Hash the first and the last block of a file, and 64 blocks whose places follow from its size."""
    digest = hashlib.sha256()
    seed = hashlib.shake_256(str(size).encode()).digest(8 * _N_BLOCKS)
    places = [int.from_bytes(seed[8 * number : 8 * number + 8]) % max(size, 1) for number in range(_N_BLOCKS)]
    for place in sorted({0, max(size - _BLOCK_BYTES, 0), *places}):
        digest.update(os.pread(file.fileno(), _BLOCK_BYTES, place))
    return digest.hexdigest()


def _read_note(note: Path) -> tuple[list[object], str] | None:
    try:
        found = parse_json(note.read_text(encoding="utf-8"))
        return found["file"], str(found["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


Loudness: TypeAlias = Literal["quiet", "normal", "verbose"]
_VERBOSE_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHATTY: Final = ("httpx", "httpx2", "httpcore", "datasets", "evaluate", "filelock", "accelerate")


class _Printable(logging.Formatter):
    """Shows control characters in names as escapes, so that no file name can steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def start_logging(loudness: Loudness = "normal") -> None:
    """Show this package's log messages, and only warnings of libraries that log every request; for commands.

    Args:
        loudness: ``quiet`` shows errors alone; ``verbose`` shows details, with the time and the module of each message.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable(_VERBOSE_FORMAT if loudness == "verbose" else "%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    levels = {"quiet": logging.ERROR, "normal": logging.INFO, "verbose": logging.DEBUG}
    logging.getLogger("bend_hf").setLevel(levels[loudness])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR if loudness == "quiet" else logging.WARNING)


def shows_progress() -> bool:
    """Whether progress bars are wanted: always but in a quiet command, and where tqdm's own variable forbids them."""
    return logging.getLogger("bend_hf").isEnabledFor(logging.WARNING) and not os.environ.get("TQDM_DISABLE")
