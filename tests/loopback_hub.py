"""A Hub of one process on the loopback interface: enough of its interface for pushes, loads and cards.

It proves what is sent and read back, not what the real Hub would make of it. ``HF_ENDPOINT`` must be set before
huggingface_hub is imported, so whatever speaks to it runs in a process of its own: see ``Hub.environment``.

>>> with Hub() as hub:
...     hub.endpoint.startswith("http://127.0.0.1:")
True
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

TOKEN = "hf_loopbackSecret0123456789"
USER = "me"
LARGE = (".parquet", ".png")


@dataclass
class Repo:
    """One repository: its files at each commit, and what its branches and pull requests point at."""

    kind: str
    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    titles: dict[int, str] = field(default_factory=dict)
    sent: list[list[str]] = field(default_factory=list)  # paths that each pushed commit added, replaced or deleted

    def __post_init__(self) -> None:
        self.commit("main", {})

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        """Makes a commit and moves a ref to it."""
        content = [f"{path} {hashlib.sha1(body).hexdigest()}" for path, body in sorted(files.items())]
        said = "\n".join([self.kind, self.name, str(len(self.commits)), *content])
        sha = hashlib.sha1(said.encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """The commit of a branch, a pull request or a commit."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        """What stands on main."""
        return self.commits[self.refs["main"]]


@dataclass
class Failure:
    """Answers the next requests that match with an error.

    Attributes:
        status: HTTP status; None breaks the connection off.
        match: Expression that ``METHOD path`` must hold.
        times: How many requests; counted down.
        done_first: Whether the Hub does what was asked for before the answer is lost.
        body: The answer, instead of one that names the status.
        location: Where the answer says that it is to be found.
    """

    status: int | None
    match: str
    times: int
    done_first: bool = False
    body: bytes | None = None
    location: str | None = None


class Hub:
    """The server; a context manager."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.failures: list[Failure] = []
        self.requests: list[str] = []
        self.tokens: list[str | None] = []  # with which the requests came
        self.jobs: list[dict[str, Any]] = []  # as they were asked for; their stage and log lines may be set
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def environment(self, home: Path, *, token: str | None = TOKEN) -> dict[str, str]:
        """Environment of a process that speaks to this Hub alone."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {
            **kept,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "false",
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
            **({"HF_TOKEN": token} if token else {}),
        }

    def fail(
        self,
        status: int | None,
        match: str,
        times: int = 99,
        *,
        done_first: bool = False,
        body: bytes | None = None,
        location: str | None = None,
    ) -> None:
        """Lets the next requests that match fail."""
        self.failures.append(Failure(status, match, times, done_first, body, location))

    def repo(self, kind: str, name: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repo:
        """Makes a repository that somebody else owns."""
        made = self.repos[(kind, name)] = Repo(kind, name, private)
        if files:
            made.commit("main", files)
        return made

    def clear(self) -> None:
        """Forgets everything."""
        for kept in (self.repos, self.large, self.failures, self.requests, self.tokens, self.jobs):
            kept.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(_Handler):
            owner = hub

        return Handler


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    # Answers.

    def _send(self, status: int, body: Any = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if not isinstance(body, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self._send(404, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = f"{self.command} {path}"
        self.owner.requests.append(line)
        self.owner.tokens.append(self.headers.get("Authorization"))
        for failure in self.owner.failures:
            if failure.times and re.search(failure.match, line):
                failure.times -= 1
                if failure.done_first:
                    self._send = lambda *_, **__: None  # type: ignore[method-assign]
                    self._do(path)
                    del self._send
                if failure.status is None:
                    self.close_connection = True
                    self.connection.close()
                else:
                    said = failure.body or {"error": f"made to fail with {failure.status}"}
                    self._send(failure.status, said, **({"Location": failure.location} if failure.location else {}))
                return
        self._do(path)

    def _do(self, path: str) -> None:
        self.known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.command == "PUT" and path.startswith("/lfs/"):
            self.owner.large[path.removeprefix("/lfs/")] = self.body
            self._send(200)
        elif path.startswith("/api/"):
            self._api(path.removeprefix("/api/"))
        elif found := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._lfs_batch(_kind(found[1]), found[2])
        elif found := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path):
            self._resolve(_kind(found[1]), found[2], found[3], found[4])
        else:
            self._missing("EntryNotFound")

    def _api(self, path: str) -> None:
        if path == "whoami-v2":
            self._send(200, {"name": USER, "type": "user", "orgs": []}) if self.known else self._send(
                401, {"error": "no"}
            )
        elif path == "validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path == "repos/create":
            self._create(json.loads(self.body))
        elif found := re.fullmatch(r"jobs/([^/]+)(?:/(\d+))?(/logs)?", path):
            self._job(found[1], found[2], logs=found[3] is not None)
        elif found := re.fullmatch(r"(model|dataset|space)s/([^/]+/[^/]+)(?:/(.*))?", path):
            self._of_repo(found[1], found[2], found[3] or "")
        else:
            self._missing("EntryNotFound")

    def _job(self, owner: str, number: str | None, *, logs: bool) -> None:
        """Starts a job, or says how one is: as huggingface_hub.JobInfo reads it."""
        if not self.known or owner != USER:
            self._send(403, {"error": "You don't have the rights"})
            return
        if number is None:
            self.owner.jobs.append({**json.loads(self.body), "stage": "RUNNING", "lines": []})
            number = str(len(self.owner.jobs) - 1)
        job = self.owner.jobs[int(number)]
        if logs:
            lines = [json.dumps({"data": line, "timestamp": "2026-01-01T00:00:00Z"}) for line in job["lines"]]
            self._send(200, "".join(f"data: {line}\n\n" for line in lines).encode())
            return
        person = {"id": "1", "name": owner, "type": "user"}
        self._send(200, {"id": number, "status": {"stage": job["stage"], "message": None}, "owner": person})

    def _create(self, asked: dict[str, Any]) -> None:
        if not self.known:
            self._send(401, {"error": "Invalid username or password."})
            return
        kind, owner = asked.get("type", "model"), asked.get("organization") or USER
        name = f"{owner}/{asked['name']}"
        url = f"{self.owner.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}"
        if owner != USER:
            self._send(403, {"error": "You don't have the rights"})
        elif (kind, name) in self.owner.repos:
            self._send(409, {"error": "You already created this repo", "url": url})
        else:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.owner.repos[(kind, name)] = Repo(kind, name, bool(private))
            self._send(200, {"url": url, "name": name})

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.owner.repos.get((kind, name))
        if repo is None or (repo.private and not self.known):
            self._send(404 if self.known else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return repo

    def _of_repo(self, kind: str, name: str, rest: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        what, _, tail = rest.partition("/")
        if what in ("", "revision"):
            self._info(repo, tail or "main")
        elif what == "tree":
            found = re.fullmatch(r"(refs/pr/\d+|[^/]+)(?:/(.*))?", tail)
            assert found is not None
            self._tree(repo, found[1], found[2] or "")
        elif what == "paths-info":
            self._paths(repo, tail)
        elif what == "preupload":
            self._preupload(repo, tail)
        elif what == "commit":
            self._commit(repo, tail)
        elif what == "settings":
            asked = json.loads(self.body)
            repo.private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
            self._send(200, {})
        elif what == "discussions":
            listed = [
                {
                    "title": title,
                    "num": number,
                    "author": {"name": USER},
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "status": "open",
                    "repo": {"name": name, "type": kind},
                    "isPullRequest": True,
                }
                for number, title in repo.titles.items()
            ]
            self._send(200, {"discussions": listed, "count": len(listed), "start": 0})
        else:
            self._missing("EntryNotFound")

    def _preupload(self, repo: Repo, revision: str) -> None:
        """How each file is to be sent, and the hash of the one that is there: what create_commit compares."""
        sha = repo.at(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return
        answers = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            large, there = path.endswith(LARGE), repo.commits[sha].get(path)
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if there is not None:
                entry = self._entry(path, there)
                answer["oid"] = entry["lfs"]["oid"] if large else entry["oid"]
            answers.append(answer)
        self._send(200, {"files": answers})

    def _info(self, repo: Repo, revision: str) -> None:
        sha = repo.at(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return
        files = repo.commits[sha]
        head = re.match(r"---\n(.*?)\n---\n", files.get("README.md", b"").decode(), re.DOTALL)
        results = [
            {"filename": path, "data": item}
            for path, content in sorted(files.items())
            if path.startswith(".eval_results/")
            for item in yaml.safe_load(content)
        ]
        self._send(
            200,
            {
                "_id": repo.name,
                "id": repo.name,
                "modelId": repo.name,
                "author": repo.name.split("/")[0],
                "sha": sha,
                "private": repo.private,
                "disabled": False,
                "gated": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(files)],
                "cardData": yaml.safe_load(head[1]) if head else None,
                **({"evalResults": results} if results else {}),
            },
        )

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 128}
        return entry

    def _tree(self, repo: Repo, revision: str, folder: str) -> None:
        sha = repo.at(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return
        prefix = f"{folder}/" if folder else ""
        below = {path: content for path, content in repo.commits[sha].items() if path.startswith(prefix)}
        if folder and not below:
            self._missing("EntryNotFound")
            return
        recursive = self.query.get("recursive", "").lower() == "true"
        entries = [self._entry(p, c) for p, c in sorted(below.items()) if recursive or "/" not in p[len(prefix) :]]
        folders = {p[: len(prefix) + i] for p in below for i, s in enumerate(p[len(prefix) :]) if s == "/"}
        shown = sorted(f for f in folders if recursive or "/" not in f[len(prefix) :])
        self._send(200, entries + [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in shown])

    def _paths(self, repo: Repo, revision: str) -> None:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = urllib.parse.parse_qs(self.body.decode()).get("paths", [])
        sha = repo.at(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return
        files = repo.commits[sha]
        found = [self._entry(path, files[path]) for path in paths if path in files]
        folders = [p for p in paths if p not in files and any(name.startswith(p.rstrip("/") + "/") for name in files)]
        self._send(200, found + [{"type": "directory", "path": p, "size": 0, "oid": "0" * 40} for p in folders])

    def _commit(self, repo: Repo, revision: str) -> None:
        if not self.known:
            self._send(401, {"error": "no"})
            return
        request = self.query.get("create_pr") == "1"
        if not request and repo.name.split("/")[0] != USER and not revision.startswith("refs/pr/"):
            self._send(403, {"error": "You don't have the rights"})
            return
        sha = repo.at(revision)
        assert sha is not None
        files, title = dict(repo.commits[sha]), ""
        operations = [json.loads(line) for line in self.body.splitlines()]
        repo.sent.append(sorted(one["value"]["path"] for one in operations if one["key"] != "header"))
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "header":
                title = value["summary"]
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.owner.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"])
        number = len(repo.titles) + 1
        made = repo.commit(f"refs/pr/{number}" if request else revision, files)
        answer = {"commitOid": made, "commitUrl": f"{self.owner.endpoint}/{repo.name}/commit/{made}"}
        if request:
            repo.titles[number] = title
            answer["pullRequestUrl"] = f"{self.owner.endpoint}/{repo.name}/discussions/{number}"
        self._send(200, answer)

    def _lfs_batch(self, kind: str, name: str) -> None:
        if self._repo(kind, name) is None:
            return
        objects = []
        for asked in json.loads(self.body)["objects"]:
            if asked["oid"] not in self.owner.large:
                asked["actions"] = {"upload": {"href": f"{self.owner.endpoint}/lfs/{asked['oid']}"}}
            objects.append(asked)
        self._send(200, {"transfer": "basic", "objects": objects})

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        sha = repo.at(revision)
        if sha is None:
            self._missing("RevisionNotFound")
            return
        content = repo.commits[sha].get(path)
        if content is None:
            self._missing("EntryNotFound")
            return
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        plain = {key.replace("-", "_"): value for key, value in headers.items()}
        if asked and self.command == "GET":
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            plain["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            self._send(206, content[first : last + 1], **plain)
        elif self.command == "HEAD":
            self._send(200, b"", Content_Length=str(len(content)), **plain)
        else:
            self._send(200, content, **plain)


def _kind(prefix: str | None) -> str:
    return {None: "model", "datasets/": "dataset", "spaces/": "space"}[prefix]
