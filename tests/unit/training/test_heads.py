"""Which head a run trains, with which settings, and what a record says of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.errors import ConfigError, RegistryError
from bend_hf.tasks import TASKS
from bend_hf.tasks._spec import Head
from bend_hf.training.heads import BASELINES, HEADS, HeadRegistry, baseline_of, build_head, head_entry, head_of

MEAN_HEAD = """
from torch import nn
from bend_hf.training.heads import HeadSpec
from bend_hf.training.heads._upsample import pool, spread


class MeanHead(nn.Module):
    def __init__(self, *, width: int, n_outputs: int, scale: float = 1.0, pool_bp: int | None = None) -> None:
        super().__init__()
        self.pool_bp, self.scale = pool_bp, scale
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, x_BTD, token_of_BL):
        return self.linear(self.scale * pool(spread(x_BTD, token_of_BL).transpose(1, 2), self.pool_bp))


HEADS = (HeadSpec(key="{key}", text="a mean and a linear layer", build=MeanHead),)
"""


def head_file(folder: Path, key: str) -> Path:
    file = folder / f"{key}.py"
    file.write_text(MEAN_HEAD.replace("{key}", key))
    return file


def test_a_head_is_plain_data() -> None:
    head = Head("cnn", pool_bp=512, hidden=64)
    assert head == Head("cnn", hidden=64, pool_bp=512)
    assert hash(head) == hash(Head("cnn", hidden=64, pool_bp=512))
    assert head != Head("cnn", hidden=64)
    assert repr(head) == "Head('cnn', hidden=64, pool_bp=512)"
    assert head.settings == {"hidden": 64, "pool_bp": 512}


def test_names_are_listed_without_torch() -> None:
    code = "import sys; from bend_hf.training.heads import HEADS; print(HEADS.names(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{HEADS.names()} False"
    assert {"basset", "cnn", "linear", "resnet"} <= set(HEADS.names())


def test_the_names_of_the_files_are_the_keys() -> None:
    names = HEADS.names()
    assert [spec.key for spec in HEADS] == names
    assert {baseline.head for baseline in BASELINES.values()} <= set(names)


def test_a_head_takes_the_label_windows_of_the_task() -> None:
    genes, enhancers, cpg = (TASKS.get(k) for k in ("gene_finding", "enhancer_annotation", "cpg_methylation"))
    assert head_of(None, genes) == Head("cnn", hidden=64, kernel=3, pool_bp=None)
    assert head_of("cnn", enhancers) == Head("cnn", hidden=2, kernel=3, pool_bp=128)
    assert head_of("resnet", genes).settings["pool_bp"] is None
    assert head_of("resnet", enhancers).settings["pool_bp"] == 128
    assert head_of("linear", cpg) == Head("linear", pool_bp=512)
    assert head_of("basset", cpg) == Head("basset", window_bp=512)


def test_a_head_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="sequences of one length with one label window each"):
        head_of("basset", TASKS.get("enhancer_annotation"))
    with pytest.raises(ConfigError, match="scored without training"):
        head_of("cnn", TASKS.get("variant_effects_disease"))
    with pytest.raises(RegistryError, match="unknown head 'basett'; did you mean 'basset'"):
        head_of("basett", TASKS.get("cpg_methylation"))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Head("cnn", hiden=64), "no setting 'hiden'; did you mean 'hidden'"),
        (Head("cnn", hidden="64"), "hidden = '64'; expected int"),
        (Head("cnn", hidden=True), "hidden = True; expected int"),
        (Head("cnn", pool_bp=1.5), "pool_bp = 1.5; expected int or NoneType"),
        (Head("basset", window_bp=None), "window_bp = None; expected int"),
    ],
    ids=str,
)
def test_a_setting_that_is_unknown_or_of_another_type_is_refused(head: Head, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_head(head, 5, 1)


def test_records_and_run_keys_keep_the_names_of_the_first_release() -> None:
    cpg = TASKS.get("cpg_methylation")
    assert head_entry(head_of(None, cpg)) == {"kind": "CnnSpec", "hidden": 64, "kernel": 3, "pool_bp": 512}
    assert head_entry(head_of("linear", cpg)) == {"kind": "LinearSpec", "pool_bp": 512}
    assert head_entry(head_of("basset", cpg)) == {"kind": "BassetSpec", "window_bp": 512}
    assert head_entry(head_of("resnet", cpg)) == {
        "kind": "ResNetSpec",
        "layers": 30,
        "channels": 256,
        "kernel": 9,
        "hidden": 64,
        "head_kernel": 3,
        "pool_bp": 512,
    }
    assert head_entry(None) is None


def test_a_head_from_a_file_is_built_and_known_by_its_content(tmp_path: Path) -> None:
    file = head_file(tmp_path, "mean_of_a_file")
    head = head_of(str(file), TASKS.get("cpg_methylation"))
    assert head == Head("mean_of_a_file", pool_bp=512, scale=1.0)
    assert build_head(head, 7, 3).linear.out_features == 3
    entry = head_entry(head)
    assert entry is not None
    assert json.loads(json.dumps(entry))["kind"] == "mean_of_a_file"
    other = tmp_path / "other"
    other.mkdir()
    changed = head_file(other, "changed_mean")
    changed.write_text(changed.read_text() + "# changed\n")
    changed_entry = head_entry(head_of(f"{changed}:changed_mean", TASKS.get("cpg_methylation")))
    assert changed_entry is not None
    assert changed_entry["source_sha256"] != entry["source_sha256"]


def test_a_head_of_a_plugin_is_listed_and_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head_file(tmp_path, "head_of_a_plugin")
    package = tmp_path / "some_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[bend_hf.plugins]\nheads = head_of_a_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    heads = HeadRegistry(kind="head", package="bend_hf.training.heads", attribute="HEADS")
    before_import = heads.names()
    assert "head_of_a_plugin" in before_import
    assert heads.get("head_of_a_plugin").for_task(TASKS.get("cpg_methylation")).settings["pool_bp"] == 512
    assert [spec.key for spec in heads] == heads.names() == before_import


def test_a_head_from_a_file_must_not_have_the_key_of_another(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="head 'cnn' cannot be added"):
        head_of(str(head_file(tmp_path, "cnn")), TASKS.get("cpg_methylation"))


def test_a_baseline_and_another_head_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        baseline_of("resnet-supervised", head="cnn")
    with pytest.raises(ConfigError, match="leave --checkpoint out"):
        baseline_of("resnet-supervised", checkpoint="weights")
    assert baseline_of("resnet-supervised", head="resnet") == BASELINES["resnet-supervised"]
    assert baseline_of("resnet", head="cnn") is None
