"""Pushes and downloads, end to end, against a Hub on the loopback interface."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bend_hf.config import DataConfig
from bend_hf.embedders.cache.share_progress import ShareProgress
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.dataset_folder import build
from bend_hf.publishing.readme_text import marked_readme
from bend_hf.publishing.report import write_report
from tests.cached import made
from tests.loopback_hub import TOKEN, Hub
from tests.records import record, write
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
MODEL = "someone/dna-model"


@dataclass
class Done:
    """What a command gave."""

    status: int
    stdout: str
    stderr: str


@dataclass
class Client:
    """Commands in a process of its own that sees the loopback Hub alone."""

    hub: Hub
    child: subprocess.Popen[str]
    folder: Path

    def bend_hf(self, *words: object, token: str | None = TOKEN) -> Done:
        return self._ask({"words": [str(word) for word in words], "code": None}, token)

    def python(self, code: str, *, token: str | None = TOKEN) -> str:
        done = self._ask({"words": [], "code": code}, token)
        assert done.status == 0, done.stderr
        return done.stdout

    def _ask(self, asked: dict[str, object], token: str | None) -> Done:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps({**asked, "folder": str(self.folder), "token": token}) + "\n")
        self.child.stdin.flush()
        return Done(**json.loads(self.child.stdout.readline()))


@pytest.fixture(scope="module")
def bend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built folder of three small datasets and the metrics."""
    folder = tmp_path_factory.mktemp("built")
    tasks = ("cpg_methylation", "variant_effects_disease", "enhancer_annotation")
    data = write_data(folder / "data", tasks, n=20)
    build(DataConfig(task=tasks, data=str(data)), folder / "bend")
    return folder / "bend"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, subprocess.Popen[str]]]:
    with Hub() as hub:
        environment = {**hub.environment(tmp_path_factory.mktemp("home"), token=None), "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/e2e/hub_child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        with child:
            yield hub, child
            assert child.stdin is not None
            child.stdin.close()


@pytest.fixture
def client(running: tuple[Hub, subprocess.Popen[str]], tmp_path: Path) -> Client:
    hub, child = running
    hub.clear()
    return Client(hub, child, tmp_path)


def _done(run: Done) -> str:
    assert run.status == 0, run.stderr
    return run.stdout


def _refused(run: Done) -> str:
    assert run.status == 1, run.stdout
    assert "Traceback" not in run.stderr
    assert TOKEN not in run.stdout + run.stderr
    return next(line for line in run.stderr.splitlines() if line.startswith("error: "))


def test_datasets_are_pushed_once_and_load(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "--namespace", "me", "--from", bend)
    shown = _done(client.bend_hf(*push, "--dry-run"))
    assert client.hub.requests == []
    assert "dataset me/cpg_methylation: 6 files, " in shown
    assert "  data/train-00000-of-00001.parquet  " in shown

    _done(client.bend_hf(*push))
    repo = client.hub.repos[("dataset", "me/variant_effects")]
    assert repo.private
    assert yaml.safe_load(repo.files["eval.yaml"])["tasks"][0]["config"] == "disease"
    before = {key: dict(found.refs) for key, found in client.hub.repos.items()}

    again = _done(client.bend_hf(*push))
    assert again.count("nothing to change") == 3
    assert {key: dict(found.refs) for key, found in client.hub.repos.items()} == before

    sizes = client.python(
        "import datasets, json\n"
        "found = {n: {s: len(d) for s, d in datasets.load_dataset(n, c).items()} for n, c in\n"
        "  (('me/cpg_methylation', None), ('me/variant_effects', 'disease'), ('me/enhancer_annotation', 'fold_3'))}\n"
        "print(json.dumps(found))"
    )
    assert json.loads(sizes) == {
        "me/cpg_methylation": {"train": 10, "validation": 5, "test": 5},
        "me/variant_effects": {"test": 20},
        "me/enhancer_annotation": {"train": 16, "validation": 2, "test": 2},
    }


def test_stale_shards_are_removed_and_only_changed_files_are_sent(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend)
    _done(client.bend_hf(*push))
    repo = client.hub.repos[("dataset", "me/cpg_methylation")]
    local = (bend / "cpg_methylation" / "README.md").read_text()
    local = local.replace('load_dataset("bend/', 'load_dataset("me/')
    assert repo.files["README.md"].decode() == marked_readme(local)
    stale = {**repo.files, "data/train-00001-of-00002.parquet": b"old", "eval.yaml": b"old", "notes.txt": b"mine"}
    repo.commit("main", stale)
    assert "cpg_methylation: pushed, " in _done(client.bend_hf(*push))
    assert repo.sent[-1] == ["data/train-00001-of-00002.parquet", "eval.yaml"]
    assert set(repo.files) == (set(stale) - {"data/train-00001-of-00002.parquet"})


def test_files_of_a_repository_that_bend_hf_did_not_fill_are_not_removed(client: Client, bend: Path) -> None:
    repo = client.hub.repo("dataset", "me/cpg_methylation", files={"data/mine.parquet": b"x"})
    refused = _refused(client.bend_hf("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend))
    assert "holds data/mine.parquet (1 files of data that are not among those to push)" in refused
    assert repo.files == {"data/mine.parquet": b"x"}


def _repository_of(client: Client, bend: Path, kind: str) -> tuple[tuple[object, ...], tuple[str, str]]:
    """The command that pushes a kind of repository, with its files made anew, and the repository."""
    command: tuple[object, ...] = ("push", kind, "--namespace", "me")
    if kind == "dataset":
        copy = client.folder / "bend" / "cpg_methylation"
        shutil.copytree(bend / "cpg_methylation", copy)
        return (*command, "--from", copy.parent), ("dataset", "me/cpg_methylation")
    if kind == "metric":
        return ("push", "metric", "mcc", "--namespace", "me"), ("space", "me/mcc")
    write(client.folder / "results", record())
    if kind == "results":
        return command, ("dataset", "me/bend_results")
    write_report([client.folder / "results"], client.folder / "report", plots=False)
    return command, ("space", "me/bend_report")


THEIRS = b"license: cc-by-4.0  # mine\n"


@pytest.mark.parametrize("kind", ["dataset", "results", "report", "metric"])
def test_text_and_metadata_that_others_add_between_two_pushes_are_kept(client: Client, bend: Path, kind: str) -> None:
    command, place = _repository_of(client, bend, kind)
    _done(client.bend_hf(*command))
    repo = client.hub.repos[place]
    before = repo.files["README.md"]
    edited = re.sub(rb"(?m)^license: .*\n", b"widget: [1]\n" + THEIRS, before, count=1)
    edited = edited.replace(b"tags:\n", b"tags:\n- theirs\n").replace(
        b"<!-- bend_hf: begin", b"Note\r\n\r\n<!-- bend_hf: begin"
    )
    repo.commit("main", {**repo.files, "README.md": edited + "\n## Mine, é\n".encode()})
    if kind == "dataset":
        local = client.folder / "bend" / "cpg_methylation" / "README.md"
        local.write_text(local.read_text().replace("### License of", "### New\n\n### License of"))
    elif kind == "report":
        write(client.folder / "results", record(model="onehot", value=0.4))
        write_report([client.folder / "results"], client.folder / "report", plots=False)
    _done(client.bend_hf(*command))
    readme = repo.files["README.md"]
    for kept in (
        b"widget: [1]\n",
        THEIRS,
        b"- theirs\n",
        b"Note\r\n\r\n<!-- ",
        "<!-- bend_hf: end -->\n\n## Mine, é\n".encode(),
    ):
        assert kept in readme, kept
    local = {"dataset": client.folder / "bend" / "cpg_methylation", "report": client.folder / "report"}
    if kind in local:  # ours is the newest
        expected = marked_readme((local[kind] / "README.md").read_text().replace('"bend/', '"me/')).encode()
        assert expected.partition(b"<!-- bend_hf: begin")[2].rstrip() in readme
    assert {"dataset": b"### New", "report": b"onehot"}.get(kind, b"bend_hf") in readme
    assert "nothing to change" in _done(client.bend_hf(*command))

    damaged = readme.replace(b"<!-- bend_hf: wrote", b"Typed here.\n\n<!-- bend_hf: wrote")
    repo.commit("main", {**repo.files, "README.md": damaged})
    assert "was edited between the marks of bend_hf" in _refused(client.bend_hf(*command))
    assert repo.files["README.md"] == damaged


def test_the_readme_of_a_new_space_is_replaced_and_that_of_someone_else_kept(client: Client) -> None:
    made = b"---\ntitle: Mcc\nsdk: gradio\nsdk_version: 4.0.0\n---\n\nCheck out the configuration reference at "
    made += b"https://huggingface.co/docs/hub/spaces-config-reference\n"
    client.hub.repo("space", "me/mcc", files={"README.md": made})
    theirs = b"---\ntitle: My space\nsdk: static\n---\nHello\n"
    client.hub.repo("space", "me/auroc", files={"README.md": theirs})
    _done(client.bend_hf("push", "metric", "mcc", "auroc", "--namespace", "me"))
    readme = client.hub.repos[("space", "me/mcc")].files["README.md"]
    assert b"title: MCC\n" in readme
    assert b"configuration reference" not in readme
    readme = client.hub.repos[("space", "me/auroc")].files["README.md"]
    assert readme.startswith(b"---\ntitle: My space\nsdk: gradio\n")  # which the Space needs to start
    assert b"---\nHello\n\n<!-- bend_hf: begin" in readme


def test_datasets_come_back_by_download_and_are_checked(client: Client, bend: Path) -> None:
    _done(client.bend_hf("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend))
    fetch = ("download", "cpg_methylation", "--source", "hub", "--namespace", "me", "--data-dir", "data")
    _done(client.bend_hf(*fetch))
    there = client.folder / "data" / "cpg_methylation" / "data"
    source = bend / "cpg_methylation" / "data"
    assert (there / "test-00000-of-00001.parquet").read_bytes() == (source / "test-00000-of-00001.parquet").read_bytes()
    assert "cpg_methylation/data/test-00000-of-00001.parquet" in (client.folder / "data/sha256.json").read_text()

    repo = client.hub.repos[("dataset", "me/cpg_methylation")]
    repo.commit("main", {**repo.files, "data/test-00000-of-00001.parquet": b"another"})
    assert "its build wrote" in _refused(client.bend_hf(*fetch))


def test_metrics_are_pushed_and_loaded_by_evaluate(client: Client) -> None:
    shown = _done(client.bend_hf("push", "metric", "--namespace", "me", "--public"))
    assert "space me/mcc: pushed, " in shown
    assert not client.hub.repos[("space", "me/mcc")].private
    value = client.python(
        "import evaluate; print(evaluate.load('me/mcc').compute(predictions=[0, 1, 1], references=[0, 1, 0])['mcc'])",
        token=None,
    )
    assert float(value) == 0.5


def _card(client: Client, *records: ResultRecord) -> Path:
    folder = write(client.folder / "results", *records)
    _done(client.bend_hf("card", folder, "--out", "card"))
    return client.folder / "card"


def test_a_card_and_its_scores_are_read_back(client: Client) -> None:
    _card(client, record("gene_finding", value=0.61), record("gene_finding", value=0.63, protocol="bend-hf-1"))
    _done(client.bend_hf("push", "card", "--namespace", "me"))
    said = client.python(
        "import json\n"
        "from huggingface_hub import HfApi, ModelCard\n"
        "card, info = ModelCard.load('me/dnabert2-bend'), HfApi().model_info('me/dnabert2-bend')\n"
        "print(json.dumps({'index': sorted(r.metric_value for r in card.data.eval_results), 'private': info.private,\n"
        "  'index_of_info': sorted(r.metric_value for r in info.card_data.eval_results),\n"
        "  'results': sorted([e.dataset_id, e.task_id, e.value] for e in info.eval_results)}))"
    )
    assert json.loads(said) == {
        "index": [0.61, 0.63],
        "private": True,
        "index_of_info": [0.61, 0.63],
        "results": [
            ["bend/gene_finding", "gene_finding_cnn_bend-2024", 0.61],
            ["bend/gene_finding", "gene_finding_cnn_bend-hf-1", 0.63],
        ],
    }
    assert "nothing to change" in _done(client.bend_hf("push", "card", "--namespace", "me"))


def test_scores_go_to_the_repository_of_a_model_as_one_pull_request(client: Client) -> None:
    name = ".eval_results/bend_gene_finding_cnn.yaml"
    repo = client.hub.repo("model", MODEL, files={"README.md": b"their card", "weights.bin": b"w"})
    _card(client, record("gene_finding", value=0.61))
    push = ("push", "card", "--repo", MODEL, "--create-pr")
    assert "/discussions/1" in _done(client.bend_hf(*push))
    request = repo.commits[repo.refs["refs/pr/1"]]
    assert set(request) == {"README.md", "weights.bin", name}
    assert request["README.md"] == b"their card"
    assert set(repo.files) == {"README.md", "weights.bin"}

    assert "nothing to change" in _done(client.bend_hf(*push))
    assert list(repo.titles) == [1]

    write(client.folder / "results", record("gene_finding", value=0.7, protocol="bend-hf-1"))
    _done(client.bend_hf("push", "results", "--repo", MODEL, "--create-pr"))
    assert list(repo.titles) == [1]
    values = [entry["value"] for entry in yaml.safe_load(repo.commits[repo.refs["refs/pr/1"]][name])]
    assert values == [0.61, 0.7]


OTHER_SCORES = b"- dataset:\r\n    id: cais/hle  # another benchmark\r\n    task_id: hle\r\n  value: 20.9\r\n"


@pytest.mark.parametrize("name", ["hle.yaml", "bend_gene_finding_cnn.yaml"])
def test_scores_of_another_benchmark_keep_their_bytes(client: Client, name: str) -> None:
    repo = client.hub.repo("model", "me/model", files={f".eval_results/{name}": OTHER_SCORES})
    _card(client, record("gene_finding", value=0.61))
    _done(client.bend_hf("push", "card", "--repo", "me/model"))
    assert OTHER_SCORES in repo.files[f".eval_results/{name}"]
    assert yaml.safe_load(repo.files[".eval_results/bend_gene_finding_cnn.yaml"])[-1]["value"] == 0.61


def test_a_second_value_of_one_leaderboard_is_refused(client: Client) -> None:
    theirs = b"- dataset:\n    id: bend/gene_finding\n    task_id: gene_finding_cnn_bend-2024\n  value: 0.9\n"
    repo = client.hub.repo("model", "me/model", files={".eval_results/mine.yaml": theirs})
    _card(client, record("gene_finding", value=0.61))
    said = _refused(client.bend_hf("push", "card", "--repo", "me/model"))
    assert ".eval_results/mine.yaml already holds a value for gene_finding_cnn_bend-2024" in said
    assert repo.files == {".eval_results/mine.yaml": theirs}


THEIR_CARD = b"""---
license: mit  # chosen by hand
library_name: transformers
tags: [dna]
model-index:
- name: mine
  results:
  - task: {type: text-classification}
    dataset: {name: other, type: someone/other}
    metrics:
    - {type: accuracy, value: 0.9}
---

# My model

Trained in a garage.
"""


def _scores_of(readme: bytes) -> set[tuple[str, float]]:
    metadata = yaml.safe_load(readme.split(b"\n---\n")[0].removeprefix(b"---"))
    results = [result for model in metadata["model-index"] for result in model["results"]]
    return {(result["dataset"]["type"], metric["value"]) for result in results for metric in result["metrics"]}


def test_a_card_by_someone_else_keeps_its_text_metadata_and_scores(client: Client) -> None:
    repo = client.hub.repo("model", "me/model", files={"README.md": THEIR_CARD})
    _card(client, record("gene_finding", value=0.61))
    _done(client.bend_hf("push", "card", "--repo", "me/model"))
    readme = repo.files["README.md"]
    assert b"license: mit  # chosen by hand\nlibrary_name: transformers\n" in readme
    assert THEIR_CARD.split(b"---\n")[-1].strip() in readme
    assert _scores_of(readme) == {("someone/other", 0.9), ("bend/gene_finding", 0.61)}
    assert b"| Gene finding | mcc | 0.6100 |" in readme
    assert "nothing to change" in _done(client.bend_hf("push", "card", "--repo", "me/model"))


def test_cards_of_several_days_become_one(client: Client) -> None:
    push = ("push", "card", "--repo", "me/model")
    repo = client.hub.repo("model", "me/model", files={})
    days = (
        [record("gene_finding", value=0.61)],
        [record("chromatin_accessibility", value=0.8), record("gene_finding", value=0.63, protocol="bend-hf-1")],
        [record("gene_finding", value=0.66, created_at="2026-02-01T12:00:00Z")],
    )
    for day, records in enumerate(days):
        folder = write(client.folder / f"results{day}", *records)
        _done(client.bend_hf("card", folder, "--out", f"card{day}"))
        _done(client.bend_hf(*push, "--from", f"card{day}"))
        if day == 0:
            text = repo.files["README.md"].replace(b"license: apache-2.0", b"license: mit") + b"\n## My notes\n"
            repo.commit("main", {**repo.files, "README.md": text})
    readme = repo.files["README.md"]
    assert _scores_of(readme) == {
        ("bend/gene_finding", 0.66),
        ("bend/gene_finding", 0.63),
        ("bend/chromatin_accessibility", 0.8),
    }
    for row in (b"| Gene finding | mcc | 0.6600 |", b"| Gene finding | mcc | 0.6300 |", b"| auroc | 0.8000 |"):
        assert row in readme
    assert b"| mcc | 0.6100 |" not in readme
    assert b"license: mit" in readme
    assert readme.endswith(b"\n## My notes\n")
    together = write(client.folder / "together", *days[2], *days[1])
    _done(client.bend_hf("card", together, "--out", "at_once"))
    section = (client.folder / "at_once" / "README.md").read_bytes().split(b"<!-- bend_hf")[1]
    assert section in readme
    assert "nothing to change" in _done(client.bend_hf(*push, "--from", "card2"))


def test_the_card_of_another_model_is_refused(client: Client) -> None:
    _card(client, record("gene_finding", value=0.61))
    _done(client.bend_hf("push", "card", "--repo", "me/model"))
    before = dict(client.hub.repos[("model", "me/model")].files)
    folder = write(client.folder / "other", record("gene_finding", "hyenadna", 0.3))
    _done(client.bend_hf("card", folder, "--out", "other_card"))
    said = _refused(client.bend_hf("push", "card", "--repo", "me/model", "--from", "other_card"))
    assert "holds the card of 'dnabert2', and this one is of 'hyenadna'" in said
    assert client.hub.repos[("model", "me/model")].files == before


def _edited_records(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """What an edit of the first record makes of ``bend_records.json``."""

    def edit(content: bytes) -> bytes:
        body = json.loads(content)
        change(body["records"][0])
        return json.dumps(body).encode()

    return edit


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda content: content[:-40], "does not hold the records of a card"),
    (lambda content: b"[1]", "does not hold the records of a card"),
    (
        _edited_records(lambda one: one["metrics"]["mcc"].update(value=7.5)),
        "metrics.mcc.value is 7.5; expected a number",
    ),
    (_edited_records(lambda one: one["metrics"]["mcc"].update(value=0.9)), "outside its interval of 0.59 to 0.63"),
    (_edited_records(lambda one: one["metrics"]["mcc"].update(value=0.62)), "one of both was edited"),
    (_edited_records(lambda one: one["metrics"]["mcc"]["interval"].update(high=3)), "interval.high is 3; expected"),
    (_edited_records(lambda one: one["coverage"].update(item_sha256="x")), "expected a sha256 in hexadecimal"),
    (_edited_records(lambda one: one["coverage"].update(scored=1)), "partial coverage: 1 of 1000 items"),
    (_edited_records(lambda one: one["data"].update(origin="sample")), "holds a score of gene_finding that may not be"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: str(value)[:24])
def test_records_on_the_hub_are_checked_before_they_become_part_of_a_card(
    client: Client, damage: Callable[[bytes], bytes], said: str
) -> None:
    _card(client, record("gene_finding", value=0.61))
    _done(client.bend_hf("push", "card", "--repo", "me/model"))
    repo = client.hub.repos[("model", "me/model")]
    repo.commit("main", {**repo.files, "bend_records.json": damage(repo.files["bend_records.json"])})
    before = dict(repo.files)
    folder = write(client.folder / "later", record("chromatin_accessibility", value=0.8))
    _done(client.bend_hf("card", folder, "--out", "later_card"))
    refused = _refused(client.bend_hf("push", "card", "--repo", "me/model", "--from", "later_card"))
    assert said in refused
    assert "there" in refused.rpartition(";")[2] + refused.rpartition(".")[0]
    assert repo.files == before


def _with_predictions(folder: Path) -> Path:
    """A record, and predictions that give its score."""
    import numpy as np

    folder.mkdir()
    predictions = Predictions(
        item=np.arange(3),
        windows=np.arange(4),
        target=np.array([0, 1, 1], np.int16),
        score=np.array([0.1, 0.2, 0.3], np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )
    digest = write_predictions(predictions, folder / "run.parquet")
    coverage = {"scored": 3, "items": 3, "item_sha256": predictions.item_sha256, "identity": "content"}
    made = record(value=1.0, items=3, coverage=coverage)
    metrics = {**made.metrics, "auprc": {"value": 1.0}}
    return write(
        folder, replace(made, metrics=metrics, predictions={"file": "run.parquet", "sha256": digest, "items": 3})
    )


def test_results_are_pushed_with_their_predictions(client: Client) -> None:
    _with_predictions(client.folder / "results")
    _done(client.bend_hf("push", "results", "--namespace", "me"))
    files = client.hub.repos[("dataset", "me/bend_results")].files
    assert sorted(files) == [
        "README.md",
        "chromatin_accessibility/chromatin_accessibility__0__seed0__20260131T120000.json",
        "chromatin_accessibility/run.parquet",
    ]


def test_predictions_that_were_changed_are_not_pushed(client: Client) -> None:
    folder = _with_predictions(client.folder / "results")
    (folder / "run.parquet").write_bytes(b"other")
    assert "run.parquet has the sha256" in _refused(client.bend_hf("push", "results", "--namespace", "me"))
    assert client.hub.requests == []


def test_scores_of_a_folder_are_pushed_for_the_dataset_with_the_same_files(client: Client, bend: Path) -> None:
    _done(client.bend_hf("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend))
    revision = client.hub.repos[("dataset", "me/cpg_methylation")].refs["main"]
    facts = json.loads((bend / "cpg_methylation/data/bend_facts.json").read_text())["facts"]
    coverage = {"scored": 5, "items": 5, "item_sha256": "c" * 64}
    write(client.folder / "results", record("cpg_methylation", data=facts, coverage=coverage))
    client.hub.repo("model", MODEL)
    push = ("push", "results", "--repo", MODEL, "--create-pr")
    assert "no Hub dataset with the same content is named" in _refused(client.bend_hf(*push))
    _done(client.bend_hf(*push, "--dataset", f"cpg_methylation=me/cpg_methylation@{revision}"))
    repo = client.hub.repos[("model", MODEL)]
    text = repo.commits[repo.refs["refs/pr/1"]][".eval_results/bend_cpg_methylation_cnn.yaml"]
    assert yaml.safe_load(text)[0]["dataset"]["id"] == "me/cpg_methylation"


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(origin="sample"), "scored on the bundled sample"),
        (record(coverage={"scored": 1, "items": 2, "item_sha256": "c" * 64}), "partial coverage: 1 of 2 items"),
        (record(config={**record().config, "epochs": 1}), "epochs is 1, the task declares 100"),
        (record(created_with={**(record().created_with or {}), "git_commit": "abc-dirty"}), "uncommitted changes"),
    ],
    ids=["sample", "partial", "settings", "dirty"],
)
def test_unpublishable_scores_are_refused_everywhere(client: Client, made: ResultRecord, reason: str) -> None:
    folder = write(client.folder / "results", made)
    _done(client.bend_hf("card", folder, "--out", "card"))
    write_report([folder], client.folder / "report", plots=False)
    assert reason in _refused(client.bend_hf("push", "results", "--namespace", "me"))
    assert reason in _refused(client.bend_hf("push", "results", "--repo", MODEL, "--create-pr"))
    assert reason in _refused(client.bend_hf("push", "report", "--namespace", "me"))
    assert "may not be published" in _refused(client.bend_hf("push", "card", "--namespace", "me"))
    assert client.hub.requests == []


def test_a_report_is_pushed_as_a_static_space(client: Client) -> None:
    folder = write(client.folder / "results", record(), record(model="onehot", value=0.6))
    write_report([folder], client.folder / "report", plots=False)
    _done(client.bend_hf("push", "report", "--namespace", "me"))
    files = client.hub.repos[("space", "me/bend_report")].files
    assert files["index.html"] == (client.folder / "report" / "index.html").read_bytes()
    assert b"sdk: static" in files["README.md"]


FAILURES = [
    (401, "/api/repos/create", "the token is missing, wrong or expired; run 'hf auth login'"),
    (403, "/commit/", "the token has no write access there"),
    (404, "GET /api/datasets/me/cpg_methylation$", "the repository does not exist"),
    (429, "/preupload/", "too many requests"),
    (500, "/commit/", "the Hub failed; repeat the command later"),
    (500, "/validate-yaml", "the Hub"),
    (500, "PUT /lfs/", "the Hub failed"),
    (None, "/commit/", "the connection was lost; repeat the command"),
    (None, "PUT /lfs/", "the connection was lost"),
]


@pytest.mark.parametrize(("status", "match", "said"), FAILURES, ids=lambda value: str(value)[:12])
def test_a_failure_says_what_to_do_and_the_next_push_completes(
    client: Client, bend: Path, status: int | None, match: str, said: str
) -> None:
    push = ("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend)
    client.hub.fail(status, match)
    error = _refused(client.bend_hf(*push))
    assert said in error
    assert "dataset me/cpg_methylation" in error
    sent = set(client.hub.large)
    client.hub.failures.clear()
    client.hub.requests.clear()
    assert "cpg_methylation: pushed, " in _done(client.bend_hf(*push))
    assert len(client.hub.repos[("dataset", "me/cpg_methylation")].sent[-1]) == 6
    assert not {f"PUT /lfs/{oid}" for oid in sent} & set(client.hub.requests)
    assert "nothing to change" in _done(client.bend_hf(*push))


# What a push meets, and the clause of its error; None where it completes.
WAYS = {
    "401": (401, "/commit/", {}, "the token is missing, wrong or expired"),
    "403": (403, "/commit/", {}, "the token has no write access there"),
    "404": (404, "/preupload/", {}, "the repository does not exist"),
    "409": (409, "/commit/", {}, "the repository was changed meanwhile; repeat the command"),
    "409 without an address": (409, "/repos/create", {"done_first": True, "body": b'{"error": "exists"}'}, None),
    "409 without JSON": (409, "/repos/create", {"body": b"exists"}, "the Hub's answer could not be read"),
    "200 without JSON": (200, "/revision/|GET /api/[a-z]+/me/[^/]+$", {"body": b"<html>"}, "could not be read"),
    "200 without fields": (200, "/commit/", {"body": b"{}"}, "the Hub's answer could not be read"),
    "429": (429, "/commit/", {}, "too many requests"),
    "500": (500, "/commit/", {}, "the Hub failed; repeat the command later"),
    "cut": (None, "/commit/", {}, "the connection was lost; repeat the command"),
    "cut after the commit": (None, "/commit/", {"done_first": True}, "the connection was lost; repeat the command"),
}


@pytest.mark.slow  # 36 pushes
@pytest.mark.parametrize("kind", ["card", "results", "report"])
def test_whatever_a_push_meets_it_is_one_line_and_the_next_push_completes(client: Client, kind: str) -> None:
    if kind == "card":
        _card(client, record())
    elif kind == "results":
        _with_predictions(client.folder / "results")
    else:
        write_report([write(client.folder / "records", record())], client.folder / "report", plots=False)
    push = ("push", kind, "--namespace", "me")
    for way, (status, match, more, said) in WAYS.items():
        client.hub.repos.clear()
        client.hub.fail(status, match, 99 if said else 1, **more)
        done = client.bend_hf(*push)
        client.hub.failures.clear()
        if said is None:
            _done(done)
        else:
            assert said in _refused(done), way
        again = _done(client.bend_hf(*push))
        ((_, repo),) = client.hub.repos.items()
        assert "nothing to change" in _done(client.bend_hf(*push)), way
        assert ("nothing to change" in again) == (said is None or way == "cut after the commit"), way
        assert len(repo.sent) == 1, way


def test_an_operation_that_is_always_in_progress_is_waited_for_and_then_given_up(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend)
    busy = b'{"error": "Cannot create repo: another conflicting operation is in progress"}'
    client.hub.fail(409, "/repos/create", 2, body=busy)
    assert "cpg_methylation: pushed, " in _done(client.bend_hf(*push))
    client.hub.fail(409, "/repos/create", 99, body=busy)
    assert _refused(client.bend_hf(*push)) == (
        "error: the Hub is busy with another operation of this account (7 answers); repeat the command later"
    )
    assert len([one for one in client.hub.requests if one.endswith("/repos/create")]) == 3 + 7


def test_a_hub_that_sends_elsewhere_gets_no_token_there(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "cpg_methylation", "--namespace", "me", "--from", bend)
    with Hub() as other:
        for match in ("GET /api/", "POST /api/repos", "/preupload/", "/commit/"):
            client.hub.clear()
            client.hub.fail(307, match, location=f"{other.endpoint}/api/datasets/me/cpg_methylation")
            assert "Traceback" not in client.bend_hf(*push).stderr, match
        assert other.requests
        assert [token for token in other.tokens if token] == []


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "http://127.0.0.1:9", "file:///etc/passwd", "http://a b"])
def test_an_endpoint_that_is_no_hub_is_one_line(client: Client, endpoint: str) -> None:
    said = client.python(
        "from huggingface_hub import HfApi\n"
        "from bend_hf.errors import HubError\n"
        "from bend_hf.publishing.hub import explained\n"
        "try:\n"
        "    with explained('model me/x'):\n"
        f"        HfApi(endpoint={endpoint!r}).repo_info('me/x')\n"
        "except HubError as error:\n"
        "    print(error)"
    )
    assert said.startswith("model me/x: the Hub ")
    assert said.count("\n") == 1


def test_repositories_pushed_before_a_failure_are_complete(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "--namespace", "me", "--from", bend)
    client.hub.fail(500, "variant_effects/commit")
    assert "dataset me/variant_effects" in _refused(client.bend_hf(*push))
    client.hub.failures.clear()
    assert _done(client.bend_hf(*push)).count("nothing to change") == 2


def test_pushing_to_another_owner_raises(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "cpg_methylation", "--namespace", "someone", "--from", bend)
    assert "answered 403: the token has no write access there" in _refused(client.bend_hf(*push))


def test_without_a_token_nothing_is_sent(client: Client, bend: Path) -> None:
    push = ("push", "dataset", "--namespace", "me", "--from", bend)
    assert "no Hub token is stored on this machine; run 'hf auth login' first" in _refused(
        client.bend_hf(*push, token=None)
    )
    assert client.hub.requests == []


def test_a_token_that_is_wrong_is_never_shown(client: Client, bend: Path) -> None:
    done = client.bend_hf("push", "dataset", "--namespace", "me", "--from", bend, token="hf_WrongButSecret")
    assert done.status == 1
    assert "hf_WrongButSecret" not in done.stdout + done.stderr
    assert "answered 401" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("metric",), "push metric needs --namespace"),
        (("metric", "f9", "--namespace", "me"), "unknown metric 'f9'"),
        (("dataset", "--namespace", "me", "--create-pr"), "each dataset or metric has a repository of its own"),
        (("card",), "the repository is not given"),
        (("card", "x", "--namespace", "me"), "NAME is x, but only datasets and metrics have names"),
        (("card", "--namespace", "me"), "holds no README.md; run 'bend-hf card' first"),
        (("report", "--namespace", "me"), "holds no report; run 'bend-hf report' first"),
        (("card", "--namespace", "me", "--create-pr"), "--create-pr needs --repo OWNER/NAME of a model"),
        (("dataset", "--namespace", "me"), "run 'bend-hf build' first"),
    ],
)
def test_contradicting_flags_raise(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bend_hf.cli._main import main

    monkeypatch.chdir(tmp_path)
    assert main(["push", *words]) == 2
    assert said in capsys.readouterr().err


def test_cached_embeddings_are_pushed_as_a_dataset(client: Client) -> None:
    entry = made(client.folder / "cache")
    export = ("cache", "export", "small", "--cache", "cache", "--to", "hub:me/small_triplets")
    assert "pushed" in _done(client.bend_hf(*export))
    repo = client.hub.repos[("dataset", "me/small_triplets")]
    assert repo.private
    assert len([name for name in repo.files if name.endswith(".parquet")]) == len(entry.shards)
    said = client.python(
        "import datasets, json\n"
        "one = datasets.load_dataset('me/small_triplets', split='train')\n"
        "print(json.dumps([len(one), one[3]['item'], one.column_names]))"
    )
    assert json.loads(said.splitlines()[-1]) == [
        entry.plan.items,
        3,
        ["item", "chromosome", "start", "labels", "token_rows", "token_bp"],
    ]
    assert "nothing to change" in _done(client.bend_hf(*export))
    assert {path.name for path in (client.folder / "cache").iterdir()} == {entry.folder.name, ".probes"}
    client.hub.fail(500, "POST .*/commit/")
    assert "the Hub answered 500" in _refused(client.bend_hf(*export[:-1], "hub:me/another"))


VOLUME = "hf://buckets/me/cache"


def test_workers_are_submitted_as_jobs_of_the_hub(client: Client) -> None:
    words = ["cpg_methylation", "--data", "sample", "--model", "bend-mini", "--epochs", 1, "--seeds", 0]
    where = ["--on", "hf-jobs", "--flavor", "h200", "--volume", VOLUME, "--nodes", 2, "--time", "1:00:00"]
    assert client.hub.jobs == []
    shown = _done(client.bend_hf("submit", "run", *words, *where, "--dry-run"))
    assert "embed: 2 jobs" in shown
    assert client.hub.jobs == [], "a dry run submits nothing"
    _done(client.bend_hf("submit", "run", *words, *where, "--jobs", "jobs"))
    for number, job in enumerate(client.hub.jobs):
        assert job["volumes"] == [{"type": "bucket", "source": "me/cache", "mountPath": "/cache"}]
        assert job["environment"] == {"BEND_HF_CACHE": "/cache"}
        assert (job["flavor"], job["timeoutSeconds"], job["attempts"]) == ("h200", 3600, 4)
        assert job["command"][-3:] == ["--shard", f"{number}/2", "--no-leases"], "static shares on a mounted bucket"
    assert len(client.hub.jobs) == 2, "heads wait"
    assert "embed: 2 running, 0 of 3 shards, time left unknown" in _done(client.bend_hf("submit", "--status", "jobs"))
    train = ShareProgress(model="bend-mini", label="cpg_methylation train", rank=0, n_processes=2, n_mine=3, n_shards=6)
    test = replace(train, label="cpg_methylation test", rank=1, n_mine=1, n_shards=2)
    one, two = train.finished(seconds=20), train.finished(seconds=20).finished(seconds=30)
    client.hub.jobs[0]["lines"] = [train.text(), f"a bar 10%\ra bar 50%{one.text()}", two.text(), "other text"]
    client.hub.jobs[1]["lines"] = [replace(train, rank=1, n_done=1).text(), test.text()]  # one was there before
    # Six shards of train and two of test, as the workers say, and one of validation, as was forecast.
    assert "embed: 2 running, 3 of 9 shards, 4.0 shards per minute, 2 min left" in _done(
        client.bend_hf("submit", "--status", "jobs")
    )
    client.hub.jobs[1] |= {"stage": "ERROR", "lines": ["one", "no memory"]}
    client.hub.jobs[0]["stage"] = "COMPLETED"
    status = client.bend_hf("submit", "--status", "jobs")
    assert status.status == 1
    assert "embed: 1 done, 1 failed, 2 of 8 shards, time left unknown" in status.stdout
    assert "  log: hf jobs logs 1" in status.stdout
    assert "  no memory" in status.stdout
    assert "heads: 1 waiting" in status.stdout
    client.bend_hf("submit", "--status", "jobs", "--resume")
    assert client.hub.jobs[2]["command"] == client.hub.jobs[1]["command"], "the failed worker again"
    client.hub.jobs[2]["stage"] = "COMPLETED"
    assert "heads: 1 waiting" in _done(client.bend_hf("submit", "--status", "jobs"))
    _done(client.bend_hf("submit", "--status", "jobs", "--resume"))
    command = client.hub.jobs[3]["command"]
    assert command[command.index("run", 2) :][:2] == ["run", "--task"]
    assert command[-2:] == ["--out", "/cache/results"], "what a job writes must stay on the volume"
    client.hub.jobs[3]["stage"] = "COMPLETED"
    _done(client.bend_hf("submit", "--status", "jobs", "--resume"))
    report, flavor = client.hub.jobs[4]["command"], client.hub.jobs[4]["flavor"]
    assert report[-4:] == ["report", "/cache/results", "--out", "/cache/results_report"]
    assert flavor == "cpu-basic"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--volume is not given"),
        (["--volume", "hf://datasets/me/x"], "cannot be written"),
        (["--volume", "me/x"], "expected hf://buckets/NAMESPACE/NAME"),
        (["--volume", VOLUME, "--bed", "/tmp/x.bed"], "jobs do not see"),
        (["--volume", VOLUME, "--partition", "gpu"], "--partition is gpu, but --on is not slurm"),
    ],
)
def test_what_jobs_of_the_hub_cannot_do_is_refused(client: Client, flags: list[str], said: str) -> None:
    done = client.bend_hf("submit", "report", "results", "--on", "hf-jobs", *[one for one in flags if one != "--bed"])
    if "--bed" in flags:
        done = client.bend_hf("submit", "report", "/tmp/x.bed", "--on", "hf-jobs", "--volume", VOLUME)
    assert done.status == 2
    assert said in done.stderr
    assert client.hub.jobs == []


def test_a_job_that_the_hub_refuses_is_said(client: Client) -> None:
    client.hub.fail(402, "POST /api/jobs")
    words = ["submit", "report", "results", "--on", "hf-jobs", "--volume", VOLUME, "--jobs", "jobs"]
    done = client.bend_hf(*words)
    assert done.status == 1
    assert "the Hub started 0 of 1 jobs of the stage report" in done.stderr
