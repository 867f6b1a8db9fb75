"""Spread weights: when they are, what is gathered together, what is refused; what they learn is tested end to end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate.utils import DistributedType
from torch import nn

from bend_hf.embedders import load_embedder
from bend_hf.errors import ConfigError
from bend_hf.training.finetuning import TunedModel, check_shardable, open_for_tuning
from bend_hf.training.heads.basset import SharedBatchNorm1d
from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.sharding import block_classes, choose_units, is_sharded, shard_if_asked, shard_like, whole
from tests.fake_checkpoints import make_tiny


def accelerator(n: int) -> Any:
    """What is asked of an accelerator on CPUs."""
    return SimpleNamespace(num_processes=n, distributed_type=DistributedType.MULTI_CPU, state=SimpleNamespace())


def test_the_first_version_of_fsdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match=r"fsdp_version is 1, .*set fsdp_version: 2"):
        shard_if_asked(accelerator(2))


@pytest.mark.parametrize(("asked", "n"), [("true", 1), ("false", 2)])
def test_nothing_is_sharded_without_the_flag_or_on_one_process(
    asked: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", asked)
    found = accelerator(n)
    shard_if_asked(found)
    assert not vars(found.state)
    assert found.distributed_type == DistributedType.MULTI_CPU


def test_each_model_is_gathered_by_its_own_blocks() -> None:
    plugin = SimpleNamespace(transformer_cls_names_to_wrap=["BlockOfAnotherModel"], auto_wrap_policy=None)
    spread = cast(Any, SimpleNamespace(is_fsdp2=True, state=SimpleNamespace(fsdp_plugin=plugin)))
    model = nn.Linear(2, 2)
    choose_units(spread, model)
    assert plugin.transformer_cls_names_to_wrap == []
    model._no_split_modules = ["Mine"]  # type: ignore[assignment]
    choose_units(spread, model)
    assert plugin.transformer_cls_names_to_wrap == ["Mine"]


def test_blocks_are_what_the_outermost_lists_hold() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(2, 2)])

    network = nn.ModuleDict({"layers": nn.ModuleList([Block(), Block()]), "layers_too": nn.ModuleList([nn.GELU()])})
    assert block_classes(network) == ["Block", "GELU"]
    assert block_classes(nn.Linear(2, 2)) == []


def test_a_tensor_that_is_not_sharded_stays_itself() -> None:
    weight = torch.ones(3)
    assert whole(weight) is weight
    assert shard_like(nn.Parameter(torch.zeros(3)), weight) is weight
    assert not is_sharded(nn.Linear(2, 2))


def test_a_network_that_two_objects_run_is_refused(tmp_path: Path) -> None:
    key = "gena-lm-bigbird-base-t2t"
    embedder = load_embedder(key, checkpoint=make_tiny(key, tmp_path), random_init=True, device="cpu")
    with pytest.raises(ConfigError, match=r"cannot be sharded by FSDP.*multi_gpu\.yaml"):
        check_shardable(embedder)
    check_shardable(load_embedder("onehot"))


def test_both_objects_of_a_tuned_bigbird_hold_the_weights_that_learn(tmp_path: Path) -> None:
    key = "gena-lm-bigbird-base-t2t"
    embedder = load_embedder(key, checkpoint=make_tiny(key, tmp_path), random_init=True, device="cpu")
    embedder.embed(["ACGTACGT"])  # short: the second object, with full attention, is made now
    opened = open_for_tuning(embedder, "full")
    model = TunedModel(opened, CnnHead(width=opened.width, n_outputs=2))
    mine = {id(weight) for weight in model.parameters()}
    second = cast(Any, opened)._full_attention()
    assert {id(weight) for weight in second.parameters()} <= mine


def test_batch_norm_of_one_process_is_that_of_torch() -> None:
    ours, theirs = SharedBatchNorm1d(3), nn.BatchNorm1d(3)
    x_BCL = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x_BCL, torch.ones(4, dtype=torch.bool)), theirs(x_BCL))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_batch_norm_counts_no_item_that_is_all_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bend_hf.training.heads.basset._several_processes", lambda: True)
    monkeypatch.setattr("bend_hf.training.heads.basset._sum_over_processes", lambda value: value)
    ours, theirs = SharedBatchNorm1d(3), nn.BatchNorm1d(3)
    x_BCL = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    counted = ours(x_BCL, torch.tensor([True, True, False, True]))
    torch.testing.assert_close(counted[[0, 1, 3]], theirs(x_BCL[[0, 1, 3]]), atol=1e-6, rtol=1e-5)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-6, rtol=1e-5)
