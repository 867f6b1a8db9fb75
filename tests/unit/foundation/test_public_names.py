"""The public names of the package: loaded when they are used, typed, and light to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bend_hf
from bend_hf.errors import ConfigError, RegistryError
from tests.tiny import write_data


def test_importing_the_package_loads_no_heavy_package() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import bend_hf; seconds = time.perf_counter() - start;"
        "heavy = {'torch', 'datasets', 'transformers', 'numpy', 'pyarrow', 'evaluate'} & set(sys.modules);"
        "assert not heavy, heavy; assert seconds < 1, seconds; dir(bend_hf); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", bend_hf.__all__)
def test_every_public_name_is_there_and_is_listed(name: str) -> None:
    assert getattr(bend_hf, name) is getattr(bend_hf, name)
    assert name in dir(bend_hf)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'load_model'"):
        _ = bend_hf.load_model  # type: ignore[attr-defined]  # what is tested


def test_load_task_gives_the_datasets_of_a_task(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ("cpg_methylation",), n=12)
    data = bend_hf.load_task("cpg_methylation", str(folder))
    assert set(data.splits(None)) == {"train", "validation", "test"}
    assert data.task.metric == "auroc"
    assert data.facts["origin"] == "folder"


def test_load_task_refuses_a_group_and_an_unknown_task() -> None:
    with pytest.raises(ConfigError, match="'variant_effects' is a group of 2 tasks"):
        bend_hf.load_task("variant_effects", "sample")
    with pytest.raises(RegistryError, match="did you mean 'gene_finding'"):
        bend_hf.load_task("gene_findng", "sample")
