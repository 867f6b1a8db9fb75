"""One chain with no hand-made record: files, dataset on the Hub, a run on it, card, results and report on the Hub."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

from tests.e2e.test_hub_loopback import ROOT, Client, Done, client, running  # noqa: F401 two are fixtures
from tests.tiny import write_data

TASK = "cpg_methylation"
# The checkout that tests run from may have changed files, and scores of changed code are not published.
RELEASE = "import bend_hf.evaluation.record as record; record._git_commit = lambda: None"


def done(run: Done) -> str:
    assert run.status == 0, run.stdout + run.stderr
    return run.stdout


def test_from_files_to_a_card_with_scores_on_the_hub(client: Client) -> None:  # noqa: F811 a fixture
    folder = client.folder
    data = write_data(folder / "files", (TASK,), n=16)
    done(client.bend_hf("build", TASK, "--data", data, "--out", "bend"))
    done(client.bend_hf("push", "dataset", "--namespace", "me", "--from", "bend"))
    dataset = client.hub.repos[("dataset", f"me/{TASK}")]
    assert f'load_dataset("me/{TASK}")' in dataset.files["README.md"].decode()

    client.python(RELEASE)
    elsewhere = folder / "elsewhere"  # holds no data, and has a cache of its own
    elsewhere.mkdir()
    here = Client(client.hub, client.child, elsewhere)
    done(
        here.bend_hf("train", "--task", TASK, "--data", "hub:me", "--model", "onehot", "--seeds", 0, "--cache", "cache")
    )
    (path,) = (elsewhere / "results").glob("*.json")
    record = json.loads(path.read_text())
    assert record["data"]["origin"] == "hub"
    assert record["data"]["built_from"] == "folder"
    assert record["data"]["repo"] == f"me/{TASK}"
    assert record["data"]["revision"] == dataset.refs["main"]

    done(here.bend_hf("card", "results", "--out", "card"))
    assert "--data hub:me" in (elsewhere / "card" / "README.md").read_text()
    done(here.bend_hf("report", "results", "--out", "report"))
    for kind in ("card", "results", "report"):
        said = done(here.bend_hf("push", kind, "--namespace", "me"))
        assert "pushed" in said
        assert "nothing to change" in done(here.bend_hf("push", kind, "--namespace", "me"))

    card = client.hub.repos[("model", "me/onehot-bend")].files
    (scores,) = [yaml.safe_load(text) for name, text in card.items() if name.startswith(".eval_results/")]
    assert scores[0]["dataset"]["id"] == f"me/{TASK}"
    assert scores[0]["value"] == pytest.approx(record["metrics"]["auroc"]["value"])
    results = client.hub.repos[("dataset", "me/bend_results")].files
    assert json.loads(results[f"{TASK}/{path.name}"])["metrics"] == record["metrics"]
    assert (
        f"me/{TASK} at {dataset.refs['main'][:12]}"
        in client.hub.repos[("space", "me/bend_report")].files["index.html"].decode()
    )

    rows = here.python(f"import datasets; print(len(datasets.load_dataset('me/{TASK}', split='test')))")
    assert int(rows.split()[-1]) == record["coverage"]["items"]
    predictions = here.python(
        "import huggingface_hub, pyarrow.parquet\n"
        f"name = '{TASK}/{path.stem}.parquet'\n"
        "file = huggingface_hub.hf_hub_download('me/bend_results', name, repo_type='dataset')\n"
        "print(pyarrow.parquet.read_table(file).num_rows)"
    )
    assert int(predictions.split()[-1]) == record["coverage"]["items"]


def test_the_chain_of_the_guide_runs_and_is_read_back(client: Client) -> None:  # noqa: F811 a fixture
    section = (ROOT / "docs/results.md").read_text().partition("## From files to cards on the Hub")[2]
    lines = section.partition("```text\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 10
    write_data(client.folder / "data", (TASK,), n=16)
    client.python(RELEASE)
    for line in lines:
        line = line.replace("my-name", "me").replace("someone", "me")
        line = line.replace("bend-mini --seeds 0 1 2", "onehot --seeds 0")
        said = done(client.bend_hf(*shlex.split(line, comments=True)[1:]))
    assert "0 records are shown, 1 are already there" in said
    (path,) = (client.folder / "results").glob("*.json")
    record = json.loads(path.read_text())
    value = client.python(
        "import evaluate, huggingface_hub, pyarrow.parquet\n"
        f"name = '{TASK}/{path.stem}.parquet'\n"
        "file = huggingface_hub.hf_hub_download('me/bend_results', name, repo_type='dataset')\n"
        "rows = pyarrow.parquet.read_table(file)\n"
        "scores, targets = rows['score'].to_pylist(), rows['target'].to_pylist()\n"
        "print(evaluate.load('me/auroc').compute(predictions=scores, references=targets)['auroc'])"
    )
    assert float(value.split()[-1]) == pytest.approx(record["metrics"]["auroc"]["value"], abs=1e-6)


def test_the_namespace_of_the_environment_is_that_of_hub(client: Client) -> None:  # noqa: F811 a fixture
    data = write_data(client.folder / "files", (TASK,), n=16)
    done(client.bend_hf("build", TASK, "--data", data, "--out", "bend"))
    client.python("import os; os.environ['BEND_HF_NAMESPACE'] = 'me'")
    try:
        done(client.bend_hf("push", "dataset", "--from", "bend"))
        assert ("dataset", f"me/{TASK}") in client.hub.repos
        done(client.bend_hf("download", TASK, "--source", "hub", "--data-dir", "data"))
        done(client.bend_hf("train", "--task", TASK, "--data", "hub", "--model", "onehot", "--epochs", 1))
    finally:
        client.python("import os; del os.environ['BEND_HF_NAMESPACE']")
    (path,) = (client.folder / "results").glob("*.json")
    assert json.loads(path.read_text())["data"]["repo"] == f"me/{TASK}"


@pytest.mark.parametrize("name", ["", "a/b", "-lab", "a b"])
def test_a_namespace_that_the_hub_does_not_allow_is_refused(client: Client, name: str) -> None:  # noqa: F811 a fixture
    run = client.bend_hf("train", "--task", TASK, "--data", f"hub:{name}", "--model", "onehot")
    assert run.status == 2
    assert "expected hub:NAMESPACE" in run.stderr
    assert client.hub.requests == []
