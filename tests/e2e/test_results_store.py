"""A shared store of results on the Hub: adding to it, reading it, and what is wrong with what comes from it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bend_hf.evaluation.record import digest_of
from tests.e2e.test_hub_loopback import Client, _done, _refused, client, running  # noqa: F401 two are fixtures
from tests.records import record, write_with_predictions

TASK = "variant_effects_expression"
STORE = "someone/bend_results"
REPORT = ("report", "results", "--no-plots", "--with", f"hub:{STORE}")


def _run(folder: Path, model: str = "dnabert2", *, seed: int = 0) -> Path:
    made = record(TASK, model)
    return write_with_predictions(folder, replace(made, model={**made.model, "revision": model * 3}), seed=seed)


def _store(client: Client, folder: Path) -> dict[str, bytes]:  # noqa: F811 a fixture
    """A store of someone else that holds the runs of a folder."""
    files = {f"{TASK}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    files["README.md"] = b"# Theirs\n"
    client.hub.repo("dataset", STORE, files=files)
    return files


def _rows(client: Client) -> dict[str, dict[str, str]]:  # noqa: F811 a fixture
    with (client.folder / "report" / "scores.csv").open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_results_are_added_to_a_store_of_ones_own_and_nothing_is_replaced(client: Client) -> None:  # noqa: F811
    file = _run(client.folder / "results")
    push = ("push", "results", "--to", "me/bend_results")
    assert "dataset me/bend_results: pushed" in _done(client.bend_hf(*push))
    repo = client.hub.repos[("dataset", "me/bend_results")]
    names = {f"{TASK}/{file.name}", f"{TASK}/{file.with_suffix('.json').name}"}
    assert set(repo.files) == {"README.md", *names}
    assert "nothing to change" in _done(client.bend_hf(*push))
    assert "nothing to change" in _done(client.bend_hf("push", "results", "--to", "me"))

    repo.commit("main", {**repo.files, "README.md": b"# Edited by its owner\n", "other/a.json": b"{}"})
    _run(client.folder / "results", "hyenadna", seed=1)
    _done(client.bend_hf(*push))
    assert {"README.md", "other/a.json", *names} < set(repo.files)
    assert repo.files["README.md"] == b"# Edited by its owner\n"
    assert len(repo.sent[-1]) == 2

    for ending in (".json", ".parquet"):
        name = f"{TASK}/{file.with_suffix(ending).name}"
        before = {**repo.files, name: b"of another user"}
        repo.commit("main", before)
        assert f"already holds another {name}, and results that are there are not replaced" in _refused(
            client.bend_hf(*push)
        )
        assert repo.files == before
        repo.commit("main", {**repo.files, name: file.with_suffix(ending).read_bytes()})


def test_results_go_to_the_store_of_others_as_one_pull_request(client: Client) -> None:  # noqa: F811 a fixture
    theirs = _store(client, _run(client.folder / "theirs").parent)
    file = _run(client.folder / "results", "hyenadna", seed=1)
    push = ("push", "results", "--to", STORE)
    assert "answered 403: the token has no write access there" in _refused(client.bend_hf(*push))
    assert "/discussions/1" in _done(client.bend_hf(*push, "--create-pr"))
    repo = client.hub.repos[("dataset", STORE)]
    request = repo.commits[repo.refs["refs/pr/1"]]
    assert set(request) - set(theirs) == {f"{TASK}/{file.name}", f"{TASK}/{file.with_suffix('.json').name}"}
    assert all(request[name] == content for name, content in theirs.items())
    assert repo.files == theirs
    assert "nothing to change" in _done(client.bend_hf(*push, "--create-pr"))
    assert list(repo.titles) == [1]


def test_a_report_lays_the_records_of_a_store_next_to_ones_own(client: Client) -> None:  # noqa: F811 a fixture
    folder = _run(client.folder / "theirs", "hyenadna", seed=1).parent
    _run(folder, "grover<b>|x", seed=2)
    mine = _run(client.folder / "results")
    (folder / mine.name).write_bytes(mine.read_bytes())
    (folder / mine.with_suffix(".json").name).write_bytes(mine.with_suffix(".json").read_bytes())
    _store(client, folder)
    said = _done(client.bend_hf(*REPORT))
    assert f"{STORE} at " in said
    assert "2 records are shown, 1 are already there" in said
    assert "WARNING" not in said
    rows = _rows(client)
    assert set(rows) == {"dnabert2", f"hyenadna, from {STORE}", f"grover<b>|x, from {STORE}"}
    assert sum(row["tie_found_by"] == "paired" and float(row["p_against_best"]) <= 1 for row in rows.values()) == 2
    for name in ("README.md", "index.html"):
        text = (client.folder / "report" / name).read_text()
        assert "grover&lt;b&gt;" in text
        assert "<b>" not in text
    (store,) = json.loads((client.folder / "report" / "report.json").read_text())["stores"]
    assert store == {"repo": STORE, "commit": client.hub.repos[("dataset", STORE)].refs["main"], "records": 3}


def test_a_run_of_the_same_model_by_someone_else_is_a_row_of_its_own(client: Client) -> None:  # noqa: F811 a fixture
    _run(client.folder / "results")
    _store(client, _run(client.folder / "theirs", seed=1).parent)
    _done(client.bend_hf(*REPORT))
    assert set(_rows(client)) == {"dnabert2", f"dnabert2, from {STORE}"}


def _edited(change: Callable[[dict[str, Any]], object], *, hashed: bool = True) -> Callable[[dict[str, bytes]], None]:
    """An edit of the record of a store, by default with its hash made anew."""

    def edit(files: dict[str, bytes]) -> None:
        (name,) = [name for name in files if name.endswith(".json")]
        body = json.loads(files[name])
        change(body)
        files[name] = json.dumps({**body, "sha256": digest_of(body)} if hashed else body).encode()

    return edit


def _replaced(ending: str, content: bytes | None) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        (name,) = [name for name in files if name.endswith(ending)]
        files.pop(name)
        files |= {} if content is None else {name: content}

    return edit


DAMAGES: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "cut": (_replaced(".json", b'{"schema_version": 3, '), "is not a result record"),
    "not an object": (_replaced(".json", b"[1]"), "the schema version is None"),
    "nested": (_replaced(".json", b"[" * 100_000), "is not a result record"),
    "no predictions": (_replaced(".parquet", None), "is not in the store; expected it next to the record"),
    "other predictions": (_replaced(".parquet", b"PAR1"), "has the sha256"),
    "unknown field": (_edited(lambda body: body.update(more=1)), "unknown field 'more'"),
    "newer schema": (_edited(lambda body: body.update(schema_version=99)), "the schema version is 99"),
    "value": (_edited(lambda body: body["metrics"]["auroc"].update(value=0.123)), "metrics.auroc.value is 0.123"),
    "range": (_edited(lambda body: body["metrics"]["auroc"].update(value=7.5)), "metrics.auroc.value is 7.5"),
    "hash": (_edited(lambda body: body["cost"].update(seconds=1), hashed=False), "hash|edited"),
    "file elsewhere": (_edited(lambda body: body["predictions"].update(file="../x.parquet")), "expected the name of a"),
    "other task": (_edited(lambda body: body.update(task="gene_finding")), "it is a record of 'gene_finding'"),
    "sample": (_edited(lambda body: body["data"].update(origin="sample")), "it may not be published: scored on the b"),
}


def test_each_bad_record_is_left_out_with_one_warning(client: Client) -> None:  # noqa: F811 a fixture
    _run(client.folder / "results")
    theirs: dict[str, bytes] = {f"{TASK}/notes.txt": b"x"}
    for number, (damage, _) in enumerate([*DAMAGES.values(), (lambda files: None, "")]):
        folder = _run(client.folder / f"theirs{number}", f"model{number}", seed=number + 1).parent
        files = {f"{TASK}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        damage(files)
        theirs |= files
    client.hub.repo("dataset", STORE, files=theirs)
    warnings = [line for line in _done(client.bend_hf(*REPORT)).splitlines() if line.startswith("WARNING")]
    assert len(warnings) == len(DAMAGES)
    for number, (name, (_, said)) in enumerate(DAMAGES.items()):
        (warning,) = [line for line in warnings if f"__model{number}__seed0" in line.partition(" is left out: ")[0]]
        assert any(part in warning for part in said.split("|")), (name, warning)
    assert set(_rows(client)) == {"dnabert2", f"model{len(DAMAGES)}, from {STORE}"}


FAILURES = [
    (401, "GET /api/datasets/", "answered 401: the token is missing, wrong or expired"),
    (403, "GET /api/datasets/", "answered 403: the token may not read it; ask its owner"),
    (404, "GET /api/datasets/", "answered 404: the repository does not exist"),
    (409, "/tree/", "answered 409"),
    (429, "/tree/", "answered 429: too many requests"),
    (500, "/tree/", "answered 500: the Hub failed"),
    (403, "/resolve/", "answered 403"),
    (500, "/resolve/", "answered 500"),
    (None, "GET /api/datasets/", "the connection was lost; repeat the command"),
    (None, "/resolve/", "the connection was lost; repeat the command"),
]


@pytest.mark.parametrize(("status", "match", "said"), FAILURES, ids=lambda value: str(value)[:18])
def test_a_store_that_cannot_be_read_ends_the_report_and_the_next_one_completes(
    client: Client,  # noqa: F811 a fixture
    status: int | None,
    match: str,
    said: str,
) -> None:
    _run(client.folder / "results")
    _store(client, _run(client.folder / "theirs", "hyenadna", seed=3 + FAILURES.index((status, match, said))).parent)
    client.hub.fail(status, match)
    refused = _refused(client.bend_hf(*REPORT))
    assert said in refused
    assert f"dataset {STORE}: the Hub " in refused
    assert not (client.folder / "report").exists()
    client.hub.failures.clear()
    _done(client.bend_hf(*REPORT))
    assert len(_rows(client)) == 2


@pytest.mark.parametrize(
    ("status", "match", "said"),
    [
        (401, "/commit/", "the token is missing"),
        (403, "/commit/", "no write access"),
        (409, "/commit/", "was changed meanwhile; repeat the command"),
        (429, "/preupload/", "too many requests"),
        (500, "/paths-info/", "the Hub failed"),
        (None, "/commit/", "the connection was lost"),
        (None, "PUT /lfs/", "the connection was lost"),
    ],
)
def test_a_push_to_a_store_that_fails_is_completed_by_the_next(
    client: Client,  # noqa: F811 a fixture
    status: int | None,
    match: str,
    said: str,
) -> None:
    push = ("push", "results", "--to", "me/bend_results")
    _run(client.folder / "results")
    _done(client.bend_hf(*push))
    _run(client.folder / "results", "hyenadna", seed=1)
    repo = client.hub.repos[("dataset", "me/bend_results")]
    before = dict(repo.files)
    client.hub.fail(status, match)
    assert said in _refused(client.bend_hf(*push))
    assert repo.files == before
    client.hub.failures.clear()
    assert "pushed" in _done(client.bend_hf(*push))
    assert len(repo.files) == len(before) + 2
    assert "nothing to change" in _done(client.bend_hf(*push))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "card", "--to", "me/x"), "only results go to a shared store"),
        (("push", "results", "--to", "me/x", "--repo", "me/y"), "--to names the repository"),
        (("push", "results", "--to", "a/b/c"), "the Hub takes no repository name 'a/b/c'"),
        (("report", "results", "--with", "hub:"), "the Hub takes no repository name"),
        (("report", "results", "--with", "hub:a b"), "the Hub takes no repository name"),
        (("report", "results", "--with", "someone"), "expected 'published' or hub:OWNER/NAME"),
        (("compare", "a.parquet", "b.parquet", "--with", "hub:me"), "Use 'bend-hf report' for it"),
    ],
)
def test_words_that_name_no_store_are_refused(client: Client, words: tuple[str, ...], said: str) -> None:  # noqa: F811
    file = _run(client.folder / "results")
    for name in ("a", "b"):
        (client.folder / f"{name}.parquet").write_bytes(file.read_bytes())
    done = client.bend_hf(*words)
    assert done.status == 2
    assert said in done.stderr
    assert client.hub.requests == []
