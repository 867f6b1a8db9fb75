"""A model of the user's with one embedding per sequence fits tasks with one set of labels per sequence."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.config import RunConfig
from bend_hf.embedders import load_embedder
from bend_hf.errors import InputError, ModelError
from bend_hf.runs.run import run
from bend_hf.variants import ScoreSettings
from bend_hf.variants.batch import VariantModel
from tests.tiny import write_data

MODEL = """
import torch
from torch import nn


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 6)

    def embed(self, sequences):
        rows = [torch.tensor([[float(base == one) for one in "ACGT"] for base in s]) for s in sequences]
        return [self.layer(row).mean(dim=0) for row in rows]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "pooled.py").write_text(MODEL)
    return tmp_path / "pooled.py"


@pytest.mark.parametrize("no_cache", [True, False])
def test_pooled_torch_module_trains_a_head(tmp_path: Path, model: Path, no_cache: bool) -> None:
    data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)
    (outcome,) = run(
        RunConfig(
            task=("cpg_methylation",),
            data=str(data),
            model=str(model),
            epochs=1,
            no_cache=no_cache,
            cache=tmp_path / "cache",
            out=tmp_path / "out",
        )
    )
    assert outcome.record.coverage["scored"] == outcome.record.coverage["items"]
    assert outcome.record.model["width"] == 6


def test_pooled_model_is_refused_where_places_count(tmp_path: Path, model: Path) -> None:
    data = write_data(tmp_path / "data", ("gene_finding",), n=20)
    config = RunConfig(task=("gene_finding",), data=str(data), model=str(model), epochs=1, out=tmp_path / "out")
    with pytest.raises(InputError, match=r"one embedding per sequence, but gene_finding asks about places"):
        run(config)
    with pytest.raises(ModelError, match="variants are compared at their place"):
        VariantModel.of(load_embedder(model), ScoreSettings())
