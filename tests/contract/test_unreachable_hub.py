"""Every function that reads from the Hub says in an error of this package that the Hub was not reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from bend_hf import load_task
from bend_hf.data.published_files import fetch_from_hub
from bend_hf.data.sources import DatasetRef
from bend_hf.embedders._checkpoint_files import resolve_checkpoint
from bend_hf.errors import BendError, hub_errors
from bend_hf.publishing.publishable import read_hub_facts
from bend_hf.tasks import TASKS
from bend_hf.training.load_head import load_head

READERS: dict[str, Callable[[Path], object]] = {
    "task": lambda folder: load_task("cpg_methylation", data="hub"),
    "published files": lambda folder: fetch_from_hub([TASKS.get("cpg_methylation")], folder),
    "facts": lambda folder: read_hub_facts(DatasetRef(repo="bend/x", revision="0" * 40), TASKS.get("cpg_methylation")),
    "head": lambda folder: load_head("bend/heads"),
    "head's file": lambda folder: load_head("bend/heads/heads/one.safetensors"),
    "checkpoint": lambda folder: resolve_checkpoint("bend/checkpoint"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_hub_that_is_not_reached_is_an_error_of_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    *_, root = hub_errors()

    def fail(*args: object, **options: object) -> None:
        raise root("[Errno -2] Name or service not known\nand more")

    for name in ("dataset_info", "model_info", "hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub.HfApi, name, fail)
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, fail)
    with pytest.raises(BendError, match="network") as raised:
        READERS[reader](tmp_path)
    assert isinstance(raised.value.__cause__, root)
    assert "\n" not in str(raised.value)
