"""A trained head next to its card on the Hub: pushed once, loaded by name, refused if it would run code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bend_hf.config import RunConfig
from bend_hf.runs import run as runs
from tests.e2e.test_hub_loopback import Client, client, running  # noqa: F401 fixtures
from tests.records import record, write
from tests.tiny import write_data

TASK = "cpg_methylation"


def test_a_head_is_pushed_with_its_card_and_the_example_there_runs(client: Client, tmp_path: Path) -> None:  # noqa: F811 a fixture
    data = write_data(tmp_path / "data", (TASK,), n=16)
    config = RunConfig(task=(TASK,), data=str(data), model="onehot", out=tmp_path / "results", epochs=1)
    (outcome,) = runs.run(config)
    outcome.path.unlink()
    # the same weights under a record that may be published
    kept = outcome.record.kept
    folder = write(tmp_path / "results", record(TASK, model="onehot", value=0.61, kept=kept))
    assert client.bend_hf("card", folder, "--out", "card").status == 0
    push = ("push", "card", "--repo", "me/heads")
    pushed = client.bend_hf(*push)
    assert pushed.status == 0, pushed.stderr
    assert f"heads/{TASK}__bend-2024__cnn.safetensors" in pushed.stdout
    card = client.hub.repos[("model", "me/heads")].files["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert f'bend_hf.load_head("me/heads/heads/{TASK}__' in code
    assert client.python(code).startswith("(1, 7) {")
    said = client.python(
        "import bend_hf, json\n"
        f"head = bend_hf.load_head('me/heads', task='{TASK}')\n"
        "print(json.dumps(head('ACGT' * 128).scores[0].tolist()))"
    )
    import bend_hf

    here = bend_hf.load_head(outcome.path.with_suffix(".safetensors"))
    assert json.loads(said) == here("ACGT" * 128).scores[0].tolist()
    assert "nothing to change" in client.bend_hf(*push).stdout

    predict = ("predict", "--head", "me/heads", "--fasta", data / "genomes" / "genome.fa", "--out", "x.parquet")
    done = client.bend_hf(*predict)
    assert done.status == 0, done.stderr
    missing = client.bend_hf(*predict, "--task", "gene_findng")
    assert "me/heads holds no head of 'gene_findng'" in missing.stderr
    client.hub.fail(500, "GET .*/me/heads")
    failed = client.bend_hf(*predict)
    assert failed.status != 0
    assert "the head cannot be read from 'me/heads' on the Hub" in failed.stderr
    client.hub.failures.clear()


def test_no_code_is_run_that_a_head_on_the_hub_names(client: Client, tmp_path: Path) -> None:  # noqa: F811 a fixture
    data = write_data(tmp_path / "data", (TASK,), n=16)
    model = tmp_path / "mine.py"
    model.write_text(
        "import numpy as np\n\ndef embed(sequences):\n"
        "    return [np.frombuffer(one.encode(), np.uint8)[:, None] / 100 for one in sequences]\n"
    )
    config = RunConfig(task=(TASK,), data=str(data), model=str(model), out=tmp_path / "results", epochs=1)
    (outcome,) = runs.run(config)
    file = outcome.path.with_suffix(".safetensors")
    client.hub.repo("model", "other/heads", files={f"heads/{TASK}__bend-2024__cnn.safetensors": file.read_bytes()})
    refused = client.bend_hf("predict", "--head", "other/heads", "--fasta", "x.fa", "--out", "x.bed")
    assert refused.status != 0
    (data / "genomes" / "genome.fa").rename(client.folder / "x.fa")
    refused = client.bend_hf("predict", "--head", "other/heads", "--fasta", "x.fa", "--out", "x.bed")
    assert "no file is run that a repository names; pass the embedder" in refused.stderr
    done = client.bend_hf("predict", "--head", "other/heads", "--model", model, "--fasta", "x.fa", "--out", "x.bed")
    assert done.status == 0, done.stderr
