"""A split that is held on the device trains a head to the same bits, without work of the host in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode

from bend_hf.embedders.cache.reader import CachedEmbeddings, DeviceEmbeddings
from bend_hf.embedders.token_embeddings import Targets
from bend_hf.tasks import Head
from bend_hf.tasks._labels import LabelKind, MultiLabel, NucleotideClasses, RealValues
from bend_hf.training import batches
from bend_hf.training.batches import DeviceTargets, HeldRows, Split, batch_rows, held_rows, labels_of, make_batch
from bend_hf.training.head_trainer import FitConfig, HeadData, fit
from bend_hf.training.heads import build_head
from bend_hf.training.losses import build_loss
from tests.cached import made, small_dataset

CPU = torch.device("cpu")
CLASSES = NucleotideClasses(names=tuple("abcde"))


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> CachedEmbeddings:
    folder: Path = tmp_path_factory.mktemp("cache")
    return CachedEmbeddings.of(made(folder).shards, dtype="float16")


def split_of(source: CachedEmbeddings, *, held: bool) -> Split:
    dataset, targets = small_dataset(), Targets(small_dataset(), CLASSES)
    if not held:
        return Split(dataset=dataset, embeddings=source, targets=targets)
    embeddings, device_targets = DeviceEmbeddings(source, CPU), DeviceTargets(targets, CPU)
    return Split(dataset=dataset, embeddings=embeddings, targets=targets, device_targets=device_targets)


def epoch_of(split: Split, *, batch_size: int = 7) -> list[Any]:
    order = batch_rows(len(split), batch_size=batch_size, seed=3, epoch=1, rank=0, n_processes=1)
    return list(held_rows(split, order, CPU))


def test_batches_are_those_of_the_host(cached: CachedEmbeddings) -> None:
    plain, held = split_of(cached, held=False), split_of(cached, held=True)
    for ours, theirs in zip(epoch_of(held), epoch_of(plain), strict=True):
        assert isinstance(ours, HeldRows)
        one, other = make_batch(held, CPU, ours), make_batch(plain, CPU, theirs)
        assert one.rows.tolist() == other.rows.tolist()
        np.testing.assert_array_equal(one.host_labels(), other.host_labels())
        for mine, expected in zip(one.inputs, other.inputs, strict=True):
            torch.testing.assert_close(mine, expected, atol=0, rtol=0)


class Operators(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# Operators that copy between host and device, or whose result the host must know before it goes on.
WAITS = {"copy_", "_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "_pin_memory", "item", "is_nonzero"}


def test_a_batch_is_made_without_the_host(cached: CachedEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    held = split_of(cached, held=True)
    epoch = epoch_of(held)
    addresses = {one.items.untyped_storage().data_ptr() for one in epoch}
    assert len(addresses) == 1  # the batches are parts of one order, which was copied once

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the host was asked in a step")

    monkeypatch.setattr(Targets, "rows", refused)
    monkeypatch.setattr(CachedEmbeddings, "rows", refused)
    monkeypatch.setattr(torch, "from_numpy", refused)
    monkeypatch.setattr(batches, "to_device", refused)
    with Operators() as operators:
        for rows in epoch:
            batch = make_batch(held, CPU, rows)
            assert isinstance(labels_of(held, rows), torch.Tensor)
            assert isinstance(batch.labels, torch.Tensor)
    assert "index" in operators.names
    assert not operators.names & WAITS


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_head_trains_to_the_same_bits(cached: CachedEmbeddings, accumulation: int) -> None:
    config = FitConfig(epochs=2, batch_size=6, learning_rate=0.01, weight_decay=0.0, seed=1, accumulation=accumulation)
    trained = []
    for held in (False, True):
        torch.manual_seed(0)
        head = build_head(Head("linear"), cached.width, 5)
        data = HeadData(train=split_of(cached, held=held), loss=build_loss("cross_entropy"), validate=lambda _: None)
        trained.append(fit(head, data, config, Accelerator(cpu=True)))
    plain, on_device = trained
    assert [one.loss for one in plain.history] == [one.loss for one in on_device.history]
    assert plain.state
    for name, weight in plain.state.items():
        torch.testing.assert_close(on_device.state[name], weight, atol=0, rtol=0)


def test_an_epoch_draws_and_copies_its_order_once(cached: CachedEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    plain = batches.to_device

    def counted(values: Any, device: torch.device) -> torch.Tensor:
        copied.append(values.size)
        return plain(values, device)

    held = split_of(cached, held=True)
    monkeypatch.setattr(batches, "to_device", counted)
    config = FitConfig(epochs=3, batch_size=6, learning_rate=0.01, weight_decay=0.0, seed=1, accumulation=2)
    data = HeadData(train=held, loss=build_loss("cross_entropy"), validate=lambda _: None)
    fit(build_head(Head("linear"), cached.width, 5), data, config, Accelerator(cpu=True))
    assert copied == [len(held)] * 3


def test_a_process_without_an_item_reads_from_the_host(cached: CachedEmbeddings) -> None:
    held = split_of(cached, held=True)
    slices = [np.arange(3), np.zeros(0, np.int64)]
    assert held_rows(held, slices, CPU) is slices
    assert held_rows(split_of(cached, held=False), slices[:1], CPU) == slices[:1]


@pytest.mark.parametrize(
    ("kind", "column", "values"),
    [
        (MultiLabel(names=("a", "b")), "labels", [[0], [], [0, 1]]),
        (RealValues(names=("a", "b")), "labels", [[0.5, 1.0], [float("nan"), 2.0], [3.0, 4.0]]),
        (NucleotideClasses(names=("a", "b")), "labels", [[0, 1], [1], [0, 0, 1]]),
    ],
)
def test_labels_of_each_kind_are_gathered_as_they_are_read(kind: LabelKind, column: str, values: list[Any]) -> None:
    import datasets

    targets = Targets(datasets.Dataset.from_dict({column: values}), kind)
    held = DeviceTargets(targets, CPU)
    for rows in ([0, 1, 2], [1], [2, 0]):
        most = int(held.n_windows[rows].max())
        found = held.gather(torch.tensor(rows), n_windows=most).numpy()
        np.testing.assert_array_equal(found, targets.rows(np.array(rows)))
    assert len(targets) == 3


def test_a_cpu_reads_the_mapped_file_instead() -> None:
    targets = Targets(small_dataset(), CLASSES)
    assert not DeviceTargets.fits(targets, CPU)
    assert not DeviceTargets.fits(targets, torch.device("mps"))


def test_labels_are_held_on_a_gpu_that_has_twice_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Targets(small_dataset(), CLASSES)
    n_bytes = 2 * len(targets) * int(targets.n_windows().max())
    for free, fits in ((2 * n_bytes, False), (2 * n_bytes + 2, True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 0))
        assert DeviceTargets.fits(targets, torch.device("cuda")) is fits
