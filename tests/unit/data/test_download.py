"""Fetching files from a server that breaks off, lies, is busy, or does not have them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bend_hf.data.download import RemoteFile, Retry, download
from bend_hf.errors import DownloadError

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


def test_busy_server_cannot_ask_for_hours(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.script = [fails(429, Retry_After="86400"), whole]
    download(server.file(), tmp_path, retry=clock.retry())
    assert clock.waits == [300.0]


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
