"""BEND's files and genomes from a server of the tests' own: resumed, checked, recorded, unpacked."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.data.download import Retry
from bend_hf.data.published_files import GENOME_ORIGINS, GENOMES, SHARES, Published, fetch_published, published_files
from bend_hf.errors import DownloadError
from bend_hf.tasks import TASKS, select_tasks

GENOME = b">chr1\n" + b"ACGT" * 5000 + b"\n"


class Share:
    """A loopback server of files by path."""

    def __init__(self) -> None:
        self.files = {
            "/data/gene_finding/gene_finding.bed": b"chromosome\tstart\tend\tsplit\n",
            "/data/gene_finding/gene_finding.hdf5": bytes(range(256)) * 100,
            "/data/chromatin_accessibility/chromatin_accessibility.bed": b"bed\n",
            "/data/genomes/GRCh38.primary_assembly.genome.fa": GENOME,
            "/origin/GRCh37.fa.gz": gzip.compress(GENOME),
        }
        self.requests: list[str] = []
        self.break_after: int | None = None
        self.wrong_md5 = False
        share = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                share.requests.append(self.path)
                body = share.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                digest = hashlib.md5(b"other" if share.wrong_md5 else body, usedforsecurity=False).digest()
                self.send_header("x-goog-hash", "crc32c=AAAAAA==")
                self.send_header("x-goog-hash", f"md5={base64.b64encode(digest).decode()}")
                self.end_headers()
                end = None if share.break_after is None else start + share.break_after
                share.break_after = None
                self.wfile.write(body[start:end])

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.http.server_port}"

    def published(self) -> Published:
        return Published(
            base_url=f"{self.root}/data/",
            genomes={"GRCh37": f"{self.root}/origin/GRCh37.fa.gz"},
            retry=Retry(attempts=2, sleep=lambda seconds: None),
        )


@pytest.fixture
def share() -> Iterator[Share]:
    made = Share()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


GENE = select_tasks(["gene_finding"])
CHROMATIN = select_tasks(["chromatin_accessibility"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_every_task_has_its_bed_and_a_genome_that_has_an_origin(task: object) -> None:
    for share_url in SHARES.values():
        names = [file.name for file in published_files(task, share_url)]  # type: ignore[arg-type]
        assert names[0].endswith(".bed")
        assert names[-1] in GENOMES.values()
    assert set(GENOMES) == set(GENOME_ORIGINS)


def test_files_arrive_and_their_sums_are_recorded(share: Share, tmp_path: Path) -> None:
    paths = fetch_published(GENE, tmp_path, share.published())
    names = ["gene_finding/gene_finding.bed", "gene_finding/gene_finding.hdf5", GENOMES["GRCh38"]]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == names
    sums = json.loads((tmp_path / "sha256.json").read_text())
    assert sums == {name: hashlib.sha256(share.files[f"/data/{name}"]).hexdigest() for name in names}
    assert [path.name for path in tmp_path.rglob("*.part*")] == []


def test_a_second_run_fetches_nothing(share: Share, tmp_path: Path) -> None:
    fetch_published(GENE, tmp_path, share.published())
    share.requests.clear()
    fetch_published(GENE, tmp_path, share.published())
    assert share.requests == []


def test_a_file_that_was_changed_since_is_named(share: Share, tmp_path: Path) -> None:
    bed = fetch_published(GENE, tmp_path, share.published())[0]
    bed.write_bytes(b"edited")
    with pytest.raises(DownloadError, match=r"gene_finding\.bed has sha256 .* It was changed or damaged"):
        fetch_published(GENE, tmp_path, share.published())


def test_a_sum_that_is_known_beforehand_is_what_must_arrive(share: Share, tmp_path: Path) -> None:
    (tmp_path / "sha256.json").write_text(json.dumps({"gene_finding/gene_finding.bed": "0" * 64}))
    with pytest.raises(DownloadError, match=f"expected {'0' * 64}"):
        fetch_published(GENE, tmp_path, share.published())
    assert not (tmp_path / "gene_finding" / "gene_finding.bed").exists()


@pytest.mark.parametrize("place", ["sha256.txt", "gene_finding/sha256.txt"])
def test_sums_that_the_user_adds_as_text_are_what_must_arrive(share: Share, tmp_path: Path, place: str) -> None:
    name = "gene_finding.bed" if "/" in place else "gene_finding/gene_finding.bed"
    text = tmp_path / place
    text.parent.mkdir(exist_ok=True)
    text.write_text(f"{'0' * 64}  {name}\n\n{'1' * 64} *other.bed\n")
    with pytest.raises(DownloadError, match=f"expected {'0' * 64}"):
        fetch_published(GENE, tmp_path, share.published())
    assert not (tmp_path / "gene_finding" / "gene_finding.bed").exists()
    right = hashlib.sha256(share.files["/data/gene_finding/gene_finding.bed"]).hexdigest()
    text.write_text(f"{right.upper()}  ./{name}\n")
    bed = fetch_published(GENE, tmp_path, share.published())[0]
    text.write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(DownloadError, match=rf"is {right} in .*sha256.json and {'0' * 64} in .*; correct one"):
        fetch_published(GENE, tmp_path, share.published())
    assert bed.is_file()


@pytest.mark.parametrize("content", [b"no sum\n", b"abc  x.bed\n", b"\xff\xfe\n"])
def test_a_sum_as_text_that_cannot_be_read_is_an_error(share: Share, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sha256.txt").write_bytes(content)
    with pytest.raises(DownloadError, match=r"sha256.txt.* (expected '<sha256>  <file name>'|cannot be read)"):
        fetch_published(GENE, tmp_path, share.published())


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', "[" * 100_000, "{"])
def test_recorded_sums_that_cannot_be_read_are_an_error(share: Share, tmp_path: Path, content: str) -> None:
    (tmp_path / "sha256.json").write_text(content)
    with pytest.raises(DownloadError, match=r"sha256.json is not valid JSON .*; correct it"):
        fetch_published(GENE, tmp_path, share.published())


def test_a_broken_connection_is_resumed(share: Share, tmp_path: Path) -> None:
    share.break_after = 10
    paths = fetch_published(GENE, tmp_path, share.published())
    assert paths[0].read_bytes() == share.files["/data/gene_finding/gene_finding.bed"]
    assert share.requests.count("/data/gene_finding/gene_finding.bed") == 2


def test_bytes_that_are_not_what_the_server_says_are_refused(share: Share, tmp_path: Path) -> None:
    share.wrong_md5 = True
    with pytest.raises(DownloadError, match="the server says"):
        fetch_published(GENE, tmp_path, share.published())
    assert not (tmp_path / "gene_finding" / "gene_finding.bed").exists()


def test_progress_counts_up_to_the_whole(share: Share, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int | None]]] = {}

    def progress(name: str, done: int, total: int | None) -> None:
        seen.setdefault(name, []).append((done, total))

    fetch_published(GENE, tmp_path, share.published(), progress=progress)
    for name, steps in seen.items():
        size = len(share.files[f"/data/{name}"])
        assert steps[-1] == (size, size)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len(seen) == 3


def test_a_genome_the_share_lacks_comes_from_its_origin_unpacked(share: Share, tmp_path: Path) -> None:
    said: list[str] = []
    genome = fetch_published(CHROMATIN, tmp_path, share.published(), log=said.append)[-1]
    assert genome.relative_to(tmp_path).as_posix() == "genomes/GRCh37.no-chr.fa"
    assert genome.read_bytes() == GENOME
    assert [path.name for path in genome.parent.iterdir()] == ["GRCh37.no-chr.fa"]
    assert any("not in the share" in line for line in said)


def test_a_truncated_genome_is_not_put_in_place(share: Share, tmp_path: Path) -> None:
    share.files["/origin/GRCh37.fa.gz"] = gzip.compress(GENOME)[:-20]
    with pytest.raises(DownloadError, match="is not a complete gzip file"):
        fetch_published(CHROMATIN, tmp_path, share.published())
    assert list((tmp_path / "genomes").iterdir()) == []


def test_a_bed_the_share_lacks_says_where_it_was_looked_for(share: Share, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"answered 404 .*cpg_methylation\.bed"):
        fetch_published(select_tasks(["cpg_methylation"]), tmp_path, share.published())


def test_damaged_sums_are_not_overwritten(share: Share, tmp_path: Path) -> None:
    (tmp_path / "sha256.json").write_text("{")
    with pytest.raises(DownloadError, match="is not valid JSON"):
        fetch_published(GENE, tmp_path, share.published())
    assert (tmp_path / "sha256.json").read_text() == "{"


def test_the_command_lists_what_it_fetched(share: Share, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--base-url", f"{share.root}/data", "--data-dir", str(tmp_path)]
    assert main(["download", "gene_finding", "--source", "erda", *flags]) == 0
    assert "gene_finding.hdf5 (0.0 MB)" in capsys.readouterr().out
