"""The scripts in ../shared/gpu, which measure on a GPU, run here on the CPU, with networks of two layers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import embedders as benchmark
from tests.shared_data import SHARED, needs_shared

GPU = SHARED / "gpu"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CALLED = re.compile(r"python3? -m (bend_hf(?:\.train)?|benchmarks\.\w+)")


@pytest.mark.slow
@needs_shared
@pytest.mark.skipif(not (GPU / "gpu_models.py").is_file(), reason="../shared/gpu is not here")
def test_gpu_models_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (GPU / "gpu_models.py").read_text()
    text = text.replace('torch.device("cuda")', 'torch.device("cpu")').replace("torch.cuda.get_device_name()", "'CPU'")
    models = [("dnabert2", TINY, 512, 8, 4), ("gena-lm-bert-large", TINY, 512, 8, 4)]
    text, n = re.subn(r"^MODELS = \[.*?^\]$", lambda _: f"MODELS = {models!r}", text, flags=re.DOTALL | re.MULTILINE)
    assert n == 1
    monkeypatch.setattr(benchmark, "peak_flops", lambda device, dtype: 1e12)
    monkeypatch.setitem(benchmark.BATCH_TOKENS, "cpu", (1024,))
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["gpu_models.py", "200"])
    exec(compile(text, "gpu_models.py", "exec"), {"__name__": "__main__"})
    rows = json.loads((tmp_path / "gpu_models.json").read_text())["rows"]
    assert [(row["model"], row["bp"]) for row in rows] == [(model[0], bp) for model in models for bp in (512, 6000)]
    assert all(row["whole_bf16"] > 0 and 0 < row["rel_diff_bf16"] < 0.1 for row in rows)


@needs_shared
def test_what_the_shell_scripts_call_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    for script in sorted(GPU.glob("*.sh")):
        for module in CALLED.findall(script.read_text()):
            assert any((root / f"{module.replace('.', '/')}{end}").is_file() for end in (".py", "/__main__.py")), module
