"""A lock that says who works on something, on local disks and on network file systems alike.

A lease is a file that only one process can link into its place. Its holder touches it while it lives; a lease whose
holder is dead, or that was not touched for two minutes, is taken over. No clock is compared with another machine's:
whoever waits watches for the file to change.

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
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HEARTBEAT_S: Final = 10.0
_LOOK_S: Final = 1.0
STALE_S: Final = 120.0  # twelve missed heartbeats; attribute caches of NFS hold for a minute at most
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)  # link(2)


@dataclass(kw_only=True)
class Lease:
    """A lease that is held; leave its ``with`` block, or call ``release``, to give it up.

    Attributes:
        path: The lock file.
        token: Tells this holder's files from any other's.
    """

    path: Path
    token: str
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others have it."""
        self._ended.set()
        if _token_in(self.path) == self.token:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.path)


class Watch:
    """What one process saw of other processes' leases, to tell the dead ones."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[object, float]] = {}
        self._living: set[Path] = set()

    def is_stale(self, path: Path) -> bool:
        """Whether the lease that is there belongs to nobody any more."""
        try:
            stat = path.stat()
            holder = json.loads(path.read_text())
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            holder = {}  # made this instant and not yet written, or cut
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
        """Whether ``is_stale`` saw the holder live: on this machine, or by a change of its file."""
        return path in self._living


def take(path: Path, watch: Watch | None = None) -> Lease | None:
    """Takes a lease, or returns None where another process holds it.

    Args:
        path: The lock file; its folder is there.
        watch: Where given, a dead holder's lease is taken over.
    """
    token = uuid.uuid4().hex
    if watch is not None and watch.is_stale(path):
        _set_aside(path, token)
    if not _link(path, token):
        return None
    lease = Lease(path=path, token=token)
    threading.Thread(target=lease._beat, name=f"lease {path.name}", daemon=True).start()
    return lease


def take_for_long(path: Path) -> Lease | None:
    """Takes a lease that is held as long as a run lasts; None where another run lives that holds it.

    The lease of a dead run is taken over: at once where it was this machine's, else when it was not touched for two
    minutes, which are waited for.

    Args:
        path: The lock file; its folder is there.
    """
    watch = Watch()
    while True:
        lease = take(path, watch)
        if lease is not None or watch.lives(path):
            return lease
        time.sleep(_LOOK_S)


def _link(path: Path, token: str) -> bool:
    """Puts a lease into its place, written already; False where one is there."""
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
    """The same for file systems without hard links."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return True


def _set_aside(path: Path, token: str) -> None:
    """Removes a dead holder's lease; by a rename, so that of several only one does it."""
    aside = path.with_name(f"{path.name}.{token}.dead")
    with contextlib.suppress(OSError):
        path.rename(aside)
        aside.unlink()


def _token_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place() -> str:
    """Where process numbers mean the same: this machine since it started, and this container of it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _alive(holder: dict[str, object]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return holder.get("born") == _born(pid)


def _born(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where that is not to be had."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces
    return None if fields[0] == "Z" else fields[19]  # proc(5): field 22 is starttime, field 3 the state
