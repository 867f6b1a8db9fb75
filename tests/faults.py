"""Lets the n-th change that a process makes to files fail, in Python and in native code alike, and no other.

The kernel hands the system calls of a child process that write to files (``write``, ``open`` for writing, ``fsync``,
``rename``, ``link``, ``mkdir``, ``truncate`` and their relatives) to this process (seccomp, SECCOMP_RET_USER_NOTIF),
which lets them through or answers with an error. Arrow, HDF5 and safetensors write below Python and are covered too;
pages written through a memory map are not. Linux only; no privileges are needed.

>>> from tempfile import mkdtemp
>>> place = Path(mkdtemp()) / "a"
>>> life = live(lambda: place.write_text("abc"), below=place.parent)
>>> [one.kind for one in life.changes], life.status
(['open', 'write'], 3)
>>> live(lambda: place.write_text("abc"), below=place.parent, fails=2).text.splitlines()[-1]
'OSError: [Errno 28] No space left on device'
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

# Number of each system call by machine, from asm/unistd_64.h and asm-generic/unistd.h.
_CALLS: Final = {
    "x86_64": {
        "write": (1, 18, 20, 296),  # write, pwrite64, writev, pwritev
        "open": (257,),  # openat
        "fsync": (74, 75, 26),  # fsync, fdatasync, msync
        "truncate": (77, 285, 40),  # ftruncate, fallocate, sendfile
        "rename": (82, 264, 316),
        "link": (86, 265),
        "mkdir": (83, 258),
    },
    "aarch64": {
        "write": (64, 68, 66, 70),
        "open": (56,),
        "fsync": (82, 83, 227),
        "truncate": (46, 47, 71),
        "rename": (38, 276),
        "link": (37,),
        "mkdir": (34,),
    },
}
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_WITH_FOLDER: Final = (257, 264, 316, 265, 258, 56, 38, 276, 37, 34)  # the ...at calls, whose first word is a folder
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT

# linux/seccomp.h and linux/filter.h
_SET_FILTER, _NEW_LISTENER, _NO_NEW_PRIVS = 1, 8, 38
_PARENT_DEATH_SIGNAL: Final = 1  # linux/prctl.h
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_AT_FDCWD: Final = -100


@dataclass(frozen=True)
class Change:
    """One change to files that a process asked for."""

    kind: str
    path: str


@dataclass(kw_only=True)
class Life:
    """What a process did: its exit status, all it printed, and the changes it asked for below the folder."""

    status: int = -1
    text: str = ""
    changes: list[Change] = field(default_factory=list)


def why_not() -> str | None:
    """Why faults cannot be injected here, if they cannot."""
    if platform.machine() not in _CALLS:
        return f"faults can be injected on {' and '.join(_CALLS)} alone, not on {platform.machine()}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "a"
            life = live(lambda: file.write_text("a"), below=Path(folder))
    except OSError as error:
        return f"the kernel hands no system calls over here ({error})"
    return None if len(life.changes) == 2 else f"the kernel hands no system calls over here ({life.text.strip()})"


def live(
    act: Callable[[], int],
    *,
    below: Path,
    fails: int | None = None,
    error: int = errno.ENOSPC,
    stays: bool = False,
    within_s: float = 300,
) -> Life:
    """Let a fork of this process act, and let one of its changes fail.

    The fork ends with this process, and its children with it.

    Args:
        act: What it does; returns its exit status.
        below: The folder whose changes count.
        fails: Number of the change that fails, from 1.
        error: The error that it gets.
        stays: All later writes, new files and new folders fail too, as on a disk that is full.
        within_s: When to end it, in seconds; what each of its threads did then ends its text, after ``Timeout``.
    """
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as output, ours, theirs:
        child = os.fork()
        if child == 0:
            _act(act, theirs, output.fileno(), within_s)
        theirs.close()
        life = Life()
        try:
            _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
            if listeners:
                answer = partial(_answer, life, fails=fails, error=error, stays=stays)
                _watch(listeners[0], child, life, below.resolve(), answer)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            life.status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        life.text = output.read().decode(errors="replace")
    return life


def _answer(life: Life, change: Change, *, fails: int | None, error: int, stays: bool) -> int:
    """The error that a change gets; 0 lets it through."""
    number = len(life.changes)
    takes_space = change.kind in ("write", "open", "mkdir", "truncate")
    return error if number == fails or (stays and fails is not None and number > fails and takes_space) else 0


def _act(act: Callable[[], int], channel: socket.socket, output: int, within_s: float) -> None:
    """Be the child: hand the system calls over, act, and end."""
    status = 99
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        socket.send_fds(channel, [b"x"], [_hand_over()])
        channel.close()
        faulthandler.dump_traceback_later(within_s, exit=True, file=2)
        status = act()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class _Statement(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("statements", ctypes.POINTER(_Statement)))


def _hand_over() -> int:
    """Let another process decide about this one's changes to files; returns what that process listens on."""
    libc = ctypes.CDLL(None, use_errno=True)
    calls = _CALLS[platform.machine()]
    numbers = [number for kind, given in calls.items() if kind != "open" for number in given]
    # 0 loads the number of the call, then one comparison per call; openat alone is judged by its flags.
    lines = [_Statement(_LOAD, 0, 0, 0)]
    lines += [_Statement(_IF_EQUAL, len(numbers) + 3 - place, 0, number) for place, number in enumerate(numbers)]
    lines += [_Statement(_IF_EQUAL, 0, 2, calls["open"][0])]
    lines += [_Statement(_LOAD, 0, 0, 16 + 8 * 2)]  # offsetof(struct seccomp_data, args[2])
    lines += [_Statement(_IF_ANY_BIT, 1, 0, _WRITES)]
    lines += [_Statement(_RETURN, 0, 0, _ALLOW), _Statement(_RETURN, 0, 0, _NOTIFY)]
    program = _Program(len(lines), (_Statement * len(lines))(*lines))
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    call = _SECCOMP[platform.machine()]
    listener = int(libc.syscall(call, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return listener


def _watch(listener: int, child: int, life: Life, below: Path, answer: Callable[[Change], int]) -> None:
    """Answer the calls of a process and of its children until they end; they end with it."""
    kinds = {number: kind for kind, numbers in _CALLS[platform.machine()].items() for number in numbers}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while True:
            events = poll.poll(1000)
            if any(event & select.POLLHUP for _, event in events):
                return
            if not events:
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)
                continue
            asked = bytearray(80)  # struct seccomp_notif
            try:
                fcntl.ioctl(listener, _RECEIVE, asked)
            except FileNotFoundError:  # the process was killed meanwhile
                continue
            identity, task, _, number, _, _, *words = struct.unpack("=QIIiIQ6Q", asked)
            refused = 0
            path = _path(task, number, kinds[number], words)
            if path is not None and path.startswith(f"{below}/"):
                change = Change(kinds[number], path)
                life.changes.append(change)
                refused = answer(change)
            reply = struct.pack("=QqiI", identity, 0, -refused, 0 if refused else _CONTINUE)
            try:
                fcntl.ioctl(listener, _SEND, reply)
            except FileNotFoundError:
                continue
    finally:
        os.close(listener)


def _path(task: int, number: int, kind: str, words: list[int]) -> str | None:
    """The file or folder that a call would change."""
    try:
        if kind in ("write", "fsync", "truncate"):
            return str(Path(f"/proc/{task}/fd/{ctypes.c_int(words[0]).value}").readlink())
        place = 1 if number in _WITH_FOLDER else 0
        with Path(f"/proc/{task}/mem").open("rb", buffering=0) as memory:
            memory.seek(words[place])
            name = os.fsdecode(memory.read(4096).split(b"\0", 1)[0])
        start = ctypes.c_int(words[0]).value if place else _AT_FDCWD
        folder = Path(f"/proc/{task}/cwd" if start == _AT_FDCWD else f"/proc/{task}/fd/{start}").readlink()
        return os.path.normpath(folder / name)
    except (OSError, ValueError):
        return None
