"""Fetching files from a server that breaks off, lies, is busy, or does not have them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from bend_hf.data.download import RemoteFile, Retry, download
from bend_hf.errors import DownloadError
from tests.cached import start
from tests.killing import fetch_and_die

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """A loopback server that answers each request by the next step of a script; the last step repeats."""

    def __init__(self) -> None:
        self.script: list[Callable[[BaseHTTPRequestHandler], None]] = [whole]
        self.ranges: list[str | None] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.ranges.append(self.headers.get("Range"))
                step = owner.script.pop(0) if len(owner.script) > 1 else owner.script[0]
                step(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.bin"

    def file(self, *, n_bytes: int | None = len(BODY), sha256: str | None = SHA256) -> RemoteFile:
        return RemoteFile(name="weights.bin", url=self.url, n_bytes=n_bytes, sha256=sha256)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def whole(handler: BaseHTTPRequestHandler) -> None:
    """Everything from where the client asks."""
    start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
    if start >= len(BODY):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(BODY)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    handler.send_header("Content-Length", str(len(BODY) - start))
    handler.end_headers()
    handler.wfile.write(BODY[start:])


def deaf_to_ranges(handler: BaseHTTPRequestHandler) -> None:
    """Everything from the start, whatever was asked."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    handler.wfile.write(BODY)


def breaks_off_after(n_bytes: int) -> Callable[[BaseHTTPRequestHandler], None]:
    """Promises the whole and closes the connection early."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        handler.send_header("Content-Length", str(len(BODY) - start))
        handler.end_headers()
        handler.wfile.write(BODY[start : start + n_bytes])

    return answer


def sends(body: bytes, *, promised: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) if promised is None else promised))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def fails(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


class Clock:
    """Counts the seconds that would have been slept."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def retry(self, attempts: int = 4, now: float = 0.0) -> Retry:
        return Retry(attempts=attempts, first_wait_s=1.0, sleep=self.waits.append, now=lambda: now)


def test_whole_file_arrives_under_its_name(server: Server, tmp_path: Path) -> None:
    path = download(server.file(), tmp_path / "new", retry=Clock().retry())
    assert path.read_bytes() == BODY
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.bin"]


def test_an_existing_file_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    download(server.file(), tmp_path, retry=Clock().retry())
    download(server.file(), tmp_path, retry=Clock().retry())
    assert len(server.ranges) == 1


def test_file_of_another_size_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"cut short")
    assert download(server.file(), tmp_path, retry=Clock().retry()).read_bytes() == BODY


def test_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.script = [breaks_off_after(1000), breaks_off_after(500), whole]
    assert download(server.file(), tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_part_file_of_an_earlier_run_is_taken_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(BODY[:3000])
    assert download(server.file(), tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == ["bytes=3000-"]


def test_server_that_ignores_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.script = [breaks_off_after(1000), deaf_to_ranges]
    assert download(server.file(), tmp_path, retry=Clock().retry()).read_bytes() == BODY


def another_range(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 7-{len(BODY) - 1}/{len(BODY)}")
    handler.send_header("Content-Length", str(len(BODY) - 7))
    handler.end_headers()
    handler.wfile.write(BODY[7:])


def test_another_range_than_asked_for_starts_over(server: Server, tmp_path: Path) -> None:
    server.script = [breaks_off_after(1000), another_range, whole]
    assert download(server.file(), tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-", None]


def test_server_that_starts_over_and_breaks_off_each_time_is_given_up(server: Server, tmp_path: Path) -> None:
    server.script = [sends(BODY[:1000], promised=len(BODY))]
    with pytest.raises(DownloadError, match=r"after 3 tries without progress: 1000 of 10240 bytes arrived"):
        download(server.file(), tmp_path, retry=Clock().retry(attempts=3))


def test_whole_part_file_of_unknown_size_is_recognised(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(BODY)
    assert download(server.file(n_bytes=None), tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == [f"bytes={len(BODY)}-"]


def test_progress_resets_the_count_of_tries(server: Server, tmp_path: Path) -> None:
    server.script = [*[breaks_off_after(1000) for _ in range(6)], whole]
    assert download(server.file(), tmp_path, retry=Clock().retry(attempts=2)).read_bytes() == BODY


def test_server_that_always_breaks_off_is_given_up_and_the_part_kept(server: Server, tmp_path: Path) -> None:
    server.script = [breaks_off_after(1000), breaks_off_after(0)]
    with pytest.raises(DownloadError, match=r"gave up on .* after 3 tries without progress: 0 of 9240 bytes arrived"):
        download(server.file(), tmp_path, retry=Clock().retry(attempts=3))
    assert (tmp_path / "weights.bin.part").read_bytes() == BODY[:1000]
    assert not (tmp_path / "weights.bin").exists()


def test_shorter_body_under_its_own_length_is_not_taken(server: Server, tmp_path: Path) -> None:
    server.script = [sends(BODY[:50])]
    with pytest.raises(DownloadError, match=r"50 of 10240 bytes arrived"):
        download(server.file(), tmp_path, retry=Clock().retry(attempts=2))
    assert not (tmp_path / "weights.bin").exists()


def test_longer_body_than_declared_is_refused(server: Server, tmp_path: Path) -> None:
    server.script = [sends(BODY + b"more")]
    with pytest.raises(DownloadError, match=r"gave 10244 bytes; expected 10240"):
        download(server.file(), tmp_path, retry=Clock().retry())
    assert list(tmp_path.iterdir()) == []


def test_other_content_of_the_right_size_is_refused(server: Server, tmp_path: Path) -> None:
    server.script = [sends(BODY[::-1])]
    with pytest.raises(DownloadError, match=f"expected {SHA256}"):
        download(server.file(), tmp_path, retry=Clock().retry())
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_said_at_once(server: Server, tmp_path: Path) -> None:
    server.script = [fails(404)]
    with pytest.raises(DownloadError, match=r"answered 404 Not Found .* check whether weights.bin has moved"):
        download(server.file(), tmp_path, retry=Clock().retry())
    assert len(server.ranges) == 1


def test_busy_server_is_obeyed_in_seconds(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.script = [fails(429, Retry_After="17"), whole]
    assert download(server.file(), tmp_path, retry=clock.retry()).read_bytes() == BODY
    assert clock.waits == [17.0]


def test_busy_server_is_obeyed_by_date(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.script = [fails(503, Retry_After="Thu, 01 Jan 1970 00:01:00 GMT"), whole]
    download(server.file(), tmp_path, retry=clock.retry(now=20.0))
    assert clock.waits == [40.0]


@pytest.mark.parametrize("asked", ["86400", "301", "Fri, 02 Jan 1970 00:00:00 GMT"])
def test_a_server_that_asks_to_wait_for_long_is_told_to_the_user(server: Server, tmp_path: Path, asked: str) -> None:
    clock = Clock()
    server.script = [breaks_off_after(1000), fails(429, Retry_After=asked), whole]
    with pytest.raises(DownloadError, match=r"429 .* to wait [\d,]+ s, after 0 s already; at most 300 s .* kept in"):
        download(server.file(), tmp_path, retry=clock.retry())
    assert clock.waits == [1.0]
    assert (tmp_path / "weights.bin.part").read_bytes() == BODY[:1000]


def test_waits_that_a_server_asks_for_add_up(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.script = [fails(503, Retry_After="140")]
    with pytest.raises(DownloadError, match="asks to wait 140 s, after 280 s already"):
        download(server.file(), tmp_path, retry=clock.retry(attempts=9))
    assert clock.waits == [140.0, 140.0]


def test_failing_server_is_tried_with_doubled_waits_and_given_up(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.script = [fails(500)]
    with pytest.raises(DownloadError, match=r"after 4 tries without progress: the server answered 500"):
        download(server.file(), tmp_path, retry=clock.retry())
    assert clock.waits == [1.0, 2.0, 4.0]


def test_server_that_cannot_be_reached_is_given_up(server: Server, tmp_path: Path) -> None:
    unused = RemoteFile(name="x", url="http://127.0.0.1:1/x")
    with pytest.raises(DownloadError, match=r"the connection broke"):
        download(unused, tmp_path, retry=Clock().retry(attempts=2))


def test_an_address_that_is_not_http_is_refused() -> None:
    with pytest.raises(DownloadError, match=r"cannot download 'file:///etc/hosts'; expected an address"):
        RemoteFile(name="hosts", url="file:///etc/hosts")


OTHER = BODY[::-1]  # another version of the file, of the same size


def serves(body: bytes, *, obeys: bool = True, cut: int | None = None, **headers: str) -> Callable[..., None]:
    """A server with a version of the file: ranges, If-Range, and a connection that ends after ``cut`` bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        condition = handler.headers.get("If-Range")
        if obeys and condition is not None and condition not in headers.values():
            start = 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start : None if cut is None else start + cut])

    return answer


VERSIONS = [
    ({"ETag": '"one"'}, {"ETag": '"two"'}),
    ({"Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"Last_Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}),
    ({"ETag": 'W/"one"', "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"ETag": '"two"'}),
    ({}, {}),  # a server that does not say which version it sends
]


@pytest.mark.parametrize("obeys", [True, False], ids=["with If-Range", "without If-Range"])
@pytest.mark.parametrize(("old", "new"), VERSIONS)
@pytest.mark.parametrize("again", [True, False], ids=["another run", "the same run"])
def test_two_versions_of_a_file_are_never_mixed(
    server: Server, tmp_path: Path, old: dict[str, str], new: dict[str, str], obeys: bool, again: bool
) -> None:
    cut, later = serves(BODY, cut=3000, **old), serves(OTHER, obeys=obeys, **new)
    file = server.file(n_bytes=None, sha256=None)
    if again:
        server.script = [cut]
        with pytest.raises(DownloadError, match="gave up"):
            download(file, tmp_path, retry=Clock().retry(attempts=1))
        server.script = [later]
    else:
        server.script = [cut, later]
    assert download(file, tmp_path, retry=Clock().retry()).read_bytes() == OTHER
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


@pytest.mark.parametrize(("version", "_"), VERSIONS[:3])
def test_the_same_version_is_resumed(server: Server, tmp_path: Path, version: dict[str, str], _: object) -> None:
    server.script = [serves(BODY, cut=3000, **version), serves(BODY, **version)]
    file = server.file(n_bytes=None, sha256=None)
    assert download(file, tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == [None, "bytes=3000-"]


def test_a_part_of_an_unknown_version_and_without_a_sum_is_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(OTHER[:3000])
    file = server.file(sha256=None)
    assert download(file, tmp_path, retry=Clock().retry()).read_bytes() == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize("note", ["", "[]", '{"etag": 5}', '{"new": "x"}', "[" * 100_000, '{"n_bytes": "x"}'])
def test_a_damaged_note_starts_over(server: Server, tmp_path: Path, note: str) -> None:
    (tmp_path / "weights.bin.part").write_bytes(OTHER[:3000])
    (tmp_path / "weights.bin.part.json").write_text(note)
    assert download(server.file(sha256=None), tmp_path, retry=Clock().retry()).read_bytes() == BODY


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br"])
def test_a_body_that_is_packed_for_the_transfer_is_refused(server: Server, tmp_path: Path, encoding: str) -> None:
    server.script = [serves(gzip.compress(BODY), Content_Encoding=encoding)]
    with pytest.raises(DownloadError, match=rf"\(weights.bin\) arrives with Content-Encoding '{encoding}'"):
        download(server.file(n_bytes=None, sha256=None), tmp_path, retry=Clock().retry())
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_file_that_is_announced_as_such_is_kept_as_it_is(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(BODY)
    server.script = [serves(packed, Content_Encoding="x-gzip")]
    file = RemoteFile(name="a.fa.gz", url=server.url.replace("weights.bin", "a.fa.gz"))
    assert download(file, tmp_path, retry=Clock().retry()).read_bytes() == packed


def unsized(body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer whose end is the end of the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


MD5 = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
ENDS_EARLY = [
    ({"n_bytes": len(BODY)}, {}, "3000 of 10240 bytes arrived"),
    ({"n_bytes": None}, {"x_goog_stored_content_length": str(len(BODY))}, "3000 of 10240 bytes arrived"),
    ({"n_bytes": None}, {"x_goog_hash": f"crc32c=AAAAAA==,md5={MD5}"}, "arrived with md5"),
    ({"n_bytes": None, "sha256": SHA256}, {}, "has sha256"),
    ({"n_bytes": None}, {"Transfer_Encoding": "chunked"}, "IncompleteRead"),
]


@pytest.mark.parametrize(("declared", "headers", "message"), ENDS_EARLY)
def test_a_connection_that_ends_early_is_noticed_by_any_size_or_sum(
    server: Server, tmp_path: Path, declared: dict[str, Any], headers: dict[str, str], message: str
) -> None:
    chunk = b"bb8\r\n" + BODY[:3000] + b"\r\n"
    server.script = [unsized(chunk if "Transfer_Encoding" in headers else BODY[:3000], **headers)]
    with pytest.raises(DownloadError, match=message):
        download(server.file(**{"sha256": None, **declared}), tmp_path, retry=Clock().retry(attempts=2))
    assert not (tmp_path / "weights.bin").exists()


def test_a_body_whose_end_cannot_be_checked_is_reported(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = [unsized(BODY)]
    download(server.file(n_bytes=None, sha256=None), tmp_path, retry=Clock().retry())
    assert "neither the size nor a checksum of weights.bin; 10,240 bytes arrived" in caplog.text


BAD_HEADERS = [
    {"Content_Length": "abc"},
    {"Content_Length": "-5"},
    {"Content_Length": "9" * 5000},
    {"Content_Length": "\xb2"},
    {"x_goog_hash": "md5=no"},
    {"x_goog_hash": "md5=!!!!"},
    {"x_goog_hash": "md5=QUJD"},
]


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=lambda headers: str(headers)[:30])
def test_a_header_that_cannot_be_read_is_an_error_with_the_name(
    server: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    server.script = [unsized(BODY, **headers)]
    name = next(iter(headers)).replace("_", "-")
    with pytest.raises(DownloadError, match=rf"\(weights.bin\) has {name} .*; expected"):
        download(server.file(), tmp_path, retry=Clock().retry())
    assert not (tmp_path / "weights.bin").exists()


@pytest.mark.parametrize("value", ["\xb2", "soon", "-3", "9" * 5000, "Thu, 99 Foo 1970"])
def test_a_retry_after_that_cannot_be_read_is_ignored(server: Server, tmp_path: Path, value: str) -> None:
    clock = Clock()
    server.script = [fails(503, Retry_After=value), whole]
    download(server.file(), tmp_path, retry=clock.retry())
    assert clock.waits == [1.0]


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A few bytes at a time."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    for at in range(0, 1000, 10):
        handler.wfile.write(BODY[at : at + 10])
        handler.wfile.flush()
        time.sleep(0.001)


def test_a_server_that_drips_is_given_up(server: Server, tmp_path: Path) -> None:
    ticks = itertools.count()
    server.script = [drips]
    retry = Retry(attempts=3, sleep=lambda seconds: None, clock=lambda: 30.0 * next(ticks))
    with pytest.raises(DownloadError, match=r"\d+ bytes arrived in 60 s, expected 60,000 at least; what"):
        download(server.file(), tmp_path, retry=retry)
    assert (tmp_path / "weights.bin.part").stat().st_size > 0


class Lives:
    """Downloads in processes of their own, each of which dies at a moment."""

    def __init__(self, url: str, folder: Path, of: Literal["calls", "changes"]) -> None:
        self.url, self.folder, self.of, self.count = url, folder, of, folder / "count"

    def run(self, folder: Path, moment: int | None = None) -> int | None:
        process = start(fetch_and_die, self.url, folder, moment, self.count, self.of)
        process.join(60)
        return process.exitcode

    def moments(self) -> int:
        """How many moments a download has."""
        assert self.run(self.folder / "whole") == 0
        return int(self.count.read_text())

    def check(self, folder: Path) -> None:
        """The next download has the file, and nothing is left of the killed ones."""
        assert self.run(folder) == 0
        assert (folder / "weights.bin").read_bytes() == BODY
        assert [path.name for path in folder.iterdir()] == ["weights.bin"]


def test_a_download_that_is_killed_before_any_change_of_the_disk_resumes(server: Server, tmp_path: Path) -> None:
    server.script = [serves(BODY, ETag='"one"')]
    lives = Lives(server.url, tmp_path, "changes")
    for moment in range(1, lives.moments() + 1):
        folder = tmp_path / str(moment)
        assert lives.run(folder, moment) == -9
        lives.check(folder)


def test_a_download_that_is_killed_at_any_moment_and_again_resumes(server: Server, tmp_path: Path) -> None:
    server.script = [serves(BODY, ETag='"one"')]
    lives = Lives(server.url, tmp_path, "calls")
    n_moments = lives.moments()
    for number, of_one in enumerate(np.random.default_rng(0).random((12, 3))):
        folder = tmp_path / str(number)
        killed = [lives.run(folder, int(moment * n_moments) + 1) for moment in of_one[: number % 3 + 1]]
        assert killed[0] == -9  # a later one may find less to do, and end well
        lives.check(folder)


def test_of_two_downloads_of_a_file_one_waits(server: Server, tmp_path: Path) -> None:
    began = threading.Event()

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        began.set()
        time.sleep(0.2)
        whole(handler)

    server.script = [slowly]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(download, server.file(), tmp_path)
        assert began.wait(10)
        second = threads.submit(download, server.file(), tmp_path)
        assert first.result().read_bytes() == second.result().read_bytes() == BODY
    assert len(server.ranges) == 1


def test_a_full_disk_is_one_line_and_the_part_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DownloadError, match=r"weights.bin cannot be written .*No space left.*free some space"):
        download(server.file(), tmp_path, retry=Clock().retry())


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as the proxy of all addresses."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/weights.bin"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # which reads the environment when it is made
    return server


BEHIND = RemoteFile(name="weights.bin", url="http://data.example/weights.bin", n_bytes=len(BODY), sha256=SHA256)


def test_a_download_goes_through_the_proxy_of_the_environment(proxy: Server, tmp_path: Path) -> None:
    assert download(BEHIND, tmp_path).read_bytes() == BODY
    assert proxy.ranges == [None]


def test_what_a_proxy_answers_itself_is_no_file(proxy: Server, tmp_path: Path) -> None:
    def login(handler: BaseHTTPRequestHandler) -> None:
        body = b"<html>log in</html>"
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    proxy.script = [login]
    with pytest.raises(DownloadError, match=r"weights\.bin"):
        download(BEHIND, tmp_path, retry=Retry(attempts=2, first_wait_s=0.0))
    assert not (tmp_path / "weights.bin").exists()


def test_a_proxy_that_refuses_or_is_gone_is_an_error_with_the_file(
    proxy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(407)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    proxy.script = [refuses]
    with pytest.raises(DownloadError, match=r"407.*data\.example/weights\.bin"):
        download(BEHIND, tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens on the port of discard
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(DownloadError, match=r"data\.example/weights\.bin.*refused"):
        download(BEHIND, tmp_path, retry=Retry(attempts=2, first_wait_s=0.0))
    assert not (tmp_path / "weights.bin").exists()
