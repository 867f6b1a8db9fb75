"""Locks that say which process works on something, on local disks and on network file systems alike.

A lease is a file that only one process can link into its place. Its holder touches it regularly; a lease whose holder
is dead, or that was not touched for two minutes, is taken over. Clocks of two machines are never compared: a waiting
process watches for the file to change. ``lease_problem`` says whether a folder can hold leases; mounts of object stores
often cannot.

>>> import tempfile; place = Path(tempfile.mkdtemp()) / "shard.lock"
>>> with take(place) as lease:
...     take(place) is None
True
>>> place.exists()
False
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bend_hf.files import parse_json

HEARTBEAT_S: Final = 10.0
_LOOK_S: Final = 1.0
_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how mountinfo writes spaces
STALE_S: Final = 120.0  # twelve missed heartbeats; attribute caches of NFS hold for a minute at most
# FUSE file systems whose servers order the operations of all machines, or that one machine alone uses.
_FUSE_WITH_ORDER: Final = ("ceph", "ceph-fuse", "glusterfs", "juicefs", "moosefs", "mfs", "lustre", "fuse-overlayfs")
_TRIAL: Final = re.compile(r"\.lease-test\.(?P<place>[0-9a-f]{8})\.(?P<pid>\d+)-(?P<born>\w+)\.[0-9a-f]{32}(?:\..*)?")
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)  # link(2)


@dataclass(kw_only=True)
class Lease:
    """A lease that this process holds; leave its ``with`` block, or call ``release``, to give it up.

    Attributes:
        path: The lock file.
        token: Distinguishes this holder's files from those of others.
    """

    path: Path
    token: str
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lease up."""
        self._ended.set()
        if _token_in(self.path) == self.token:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


class Watch:
    """What a process saw of the leases of others, to recognize those whose holder is dead."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[object, float]] = {}
        self._living: set[Path] = set()

    def is_stale(self, path: Path) -> bool:
        """Whether the holder of a lease is dead."""
        try:
            stat = path.stat()
            holder = parse_json(path.read_text())
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            holder = {}  # just created and not yet written, or cut
        if isinstance(holder, dict) and holder.get("place") == _place():
            if not _alive(holder):
                return True
            self._living.add(path)
        state = (stat.st_mtime_ns, stat.st_ino)
        last, since = self._seen.get(path, (None, 0.0))
        if last != state:
            if last is not None:
                self._living.add(path)
            self._seen[path] = (state, time.monotonic())
            return False
        return time.monotonic() - since > STALE_S

    def lives(self, path: Path) -> bool:
        """Whether ``is_stale`` saw the holder alive: on this machine, or by a change of its file."""
        return path in self._living


def take(path: Path, watch: Watch | None = None) -> Lease | None:
    """Take a lease; return None if another process holds it.

    Args:
        path: The lock file; its folder must exist.
        watch: If given, the lease of a dead holder is taken over.
    """
    token = uuid.uuid4().hex
    if watch is not None and watch.is_stale(path):
        with _alone_in(path.parent):
            if watch.is_stale(path):  # not if another process has taken it over since
                _set_aside(path, token)
    if not _link(path, token):
        return None
    lease = Lease(path=path, token=token)
    threading.Thread(target=lease._beat, name=f"lease {path.name}", daemon=True).start()
    return lease


def take_for_long(path: Path) -> Lease | None:
    """Take a lease for the length of a run; return None if another living run holds it.

    The lease of a dead run is taken over: at once if it ran on this machine, otherwise after waiting until the lease
    was not touched for two minutes.

    Args:
        path: The lock file; its folder must exist.
    """
    watch = Watch()
    while True:
        lease = take(path, watch)
        if lease is not None or watch.lives(path):
            return lease
        time.sleep(_LOOK_S)


def unshared(path: Path) -> Lease:
    """Return a lease that nothing protects, for a folder that only this process writes, or that cannot hold leases."""
    return Lease(path=path, token=uuid.uuid4().hex)


def lease_problem(folder: Path) -> str | None:
    """Return why processes cannot divide work by leases in a folder; None if they can.

    A lease is made twice, as two processes would, and moved away. One process cannot see what another machine sees, so
    that mounts through FUSE count as unable unless their server is known to order what all machines do.

    Args:
        folder: An existing folder that can be written.
    """
    kind = file_system_of(folder)
    if kind.partition(".")[0] == "fuse" and kind.removeprefix("fuse.") not in _FUSE_WITH_ORDER:
        return f"{kind} does not say whether one machine sees at once what another creates"
    sweep_trials(folder)
    path = folder / f".lease-test.{_place_sha()}.{os.getpid()}-{_born(os.getpid())}.{uuid.uuid4().hex}"
    aside = path.with_name(f"{path.name}.aside")
    try:
        return _problem_of(path, aside)
    except OSError as error:
        return f"a file cannot be created exclusively and moved ({error})"
    finally:
        for left in (path, aside):
            with contextlib.suppress(OSError):
                left.unlink()


def sweep_trials(folder: Path) -> None:
    """Remove what processes of this machine left in a folder that were killed within ``lease_problem``."""
    for left in folder.glob(".lease-test.*"):
        found = _TRIAL.fullmatch(left.name)
        if found is None or found["place"] != _place_sha():
            continue
        if not _alive({"pid": int(found["pid"]), "born": None if found["born"] == "None" else found["born"]}):
            with contextlib.suppress(OSError):
                left.unlink()


def _problem_of(path: Path, aside: Path) -> str | None:
    """Make a lease twice and move it; return what went wrong."""
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    if not _link(path, first):
        return "a new file counts as one that exists"
    if _link(path, second) or _token_in(path) != first:
        return "a file can be created although it exists"
    aside.write_text(second)
    path.replace(aside)
    if path.exists() or _token_in(aside) != first:
        return "a file that is moved does not replace another one"
    return None


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that holds a folder, such as ``ext4`` or ``fuse.gcsfuse``; empty if unknown.

    The mount table is that of Linux, proc_pid_mountinfo(5): the mount point is field 5, the type follows the dash.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    place = folder.resolve()
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields.split()[4]))
        if place.is_relative_to(mount) and len(mount.parts) >= longest:  # a later mount hides an earlier one
            found, longest = rest.split()[0], len(mount.parts)
    return found


def _link(path: Path, token: str) -> bool:
    """Link a written lease into its place; return False if there is one."""
    text = json.dumps({"token": token, "place": _place(), "pid": os.getpid(), "born": _born(os.getpid())})
    written = path.with_name(f"{path.name}.{token}")
    try:
        written.write_text(text)
        os.link(written, path)
        return True
    except (FileExistsError, FileNotFoundError):
        # a network file system may answer a repeated request for a link that it made the first time
        return _token_in(path) == token
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, text)
    finally:
        with contextlib.suppress(OSError):
            written.unlink()


def _create(path: Path, text: str) -> bool:
    """Create a lease on file systems without hard links; return False if there is one."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time take leases over in a folder, on file systems that can lock a folder.

    Otherwise a process that judged a lease a moment ago could remove the one that another process has since put in
    its place. The lock ends with its process, and it is held for a few system calls only.
    """
    descriptor: int | None = None
    with contextlib.suppress(OSError):  # network file systems lock files that are open for writing only
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _set_aside(path: Path, token: str) -> None:
    """Remove a dead holder's lease, by a rename, so that only one of several processes does it."""
    aside = path.with_name(f"{path.name}.{token}.dead")
    with contextlib.suppress(OSError):
        path.rename(aside)
        aside.unlink()


def _token_in(path: Path) -> str | None:
    try:
        return str(parse_json(path.read_text())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place() -> str:
    """Identify where process ids mean the same: this machine since its start, and this container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _place_sha() -> str:
    """Return the start of a hash of ``_place``, for names of files."""
    return hashlib.sha256(_place().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _alive(holder: dict[str, object]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return True
    return process_lives(pid) and holder.get("born") == _born(pid)


def process_lives(pid: int) -> bool:
    """Return whether a process of that number exists on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number beyond those of the machine overflows
        return False
    except OSError:
        return True  # another user's
    return pid > 0


def _born(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine started; None if it is unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain spaces
    return None if fields[0] == "Z" else fields[19]  # proc(5): field 22 is starttime, field 3 the state
