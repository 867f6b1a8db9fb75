"""SpliceAI in plain Torch: its network against a plain one, its files, its classes, and the changes at variants.

The package is not needed: small networks with random weights, in files of the same form, take the place of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bend_hf.config import RunConfig
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import ControlError
from bend_hf.runs.controls import CONTROLS, _splice_network
from bend_hf.runs.controls._splice_network import SpliceNetwork, UnitShape, one_hot, read_network
from bend_hf.runs.controls.spliceai import (
    Ensemble,
    alleles,
    called_classes,
    delta_scores,
    load_ensemble,
    network_files,
    networks_sha256,
    site_probabilities,
)
from bend_hf.runs.run import run_controls
from bend_hf.tasks import TASKS
from tests.tiny import write_data

SMALL = (UnitShape(3, 1), UnitShape(3, 2), UnitShape(5, 1), UnitShape(3, 4))


def write_keras(path: Path, units: tuple[UnitShape, ...], *, seed: int = 0, first: int = 1) -> None:
    """Write a file of layers as Keras does, in an order that says nothing, numbered from ``first``."""
    rng = np.random.default_rng(seed)
    kernels = [(1, 4, 32), (1, 32, 32)]
    for start in range(0, len(units), 4):
        kernels += [(unit.kernel, 32, 32) for unit in units[start : start + 4] for _ in range(2)] + [(1, 32, 32)]
    kernels.append((1, 32, 3))
    layers: dict[str, dict[str, np.ndarray]] = {}
    for number, shape in enumerate(kernels):
        scale = 1 / np.sqrt(shape[0] * shape[1])
        layers[f"conv1d_{number + first}"] = {
            "kernel": rng.normal(0, scale, shape),
            "bias": rng.normal(0, 0.1, shape[2]),
        }
    for number in range(2 * len(units)):
        layers[f"batch_normalization_{number + first}"] = {
            "gamma": rng.uniform(0.5, 1.5, 32),
            "beta": rng.normal(0, 0.2, 32),
            "moving_mean": rng.normal(0, 0.2, 32),
            "moving_variance": rng.uniform(0.5, 1.5, 32),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name in sorted(layers, reverse=True):
            for array, values in layers[name].items():
                file[f"model_weights/{name}/{name}/{array}:0"] = values.astype(np.float32)
        file.create_group("model_weights/activation_1")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Networks of four units; returns what an output depends on, on each side."""
    context = sum(unit.reach_bp for unit in SMALL)
    monkeypatch.setattr(_splice_network, "UNITS", SMALL)
    monkeypatch.setattr(_splice_network, "CONTEXT_BP", context)
    return context


def plainly(network: SpliceNetwork, x_B4L: Tensor, context_bp: int) -> Tensor:
    """The network of the paper: N on both sides, convolutions that keep the length, and a cut at the end."""
    x = network.first(nn.functional.pad(x_B4L, (context_bp, context_bp)))
    output = network.skips[0](x)
    for index, unit in enumerate(network.units):
        inner = x
        for norm, convolution in zip(unit.norms, unit.convolutions, strict=True):  # type: ignore[arg-type]
            side = (convolution.kernel_size[0] - 1) * convolution.dilation[0] // 2
            inner = convolution(nn.functional.pad(torch.relu(norm(inner)), (side, side)))
        x = x + inner
        if index % 4 == 3:
            output = output + network.skips[1 + index // 4](x)
    return torch.softmax(network.last(output)[..., context_bp:-context_bp], dim=1)


def sequence_of(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGTN"), length, p=[0.24, 0.24, 0.24, 0.24, 0.04]))


def test_the_shape_is_that_of_the_paper() -> None:
    assert _splice_network.CONTEXT_BP == 5_000
    units = [(unit.kernel, unit.dilation) for unit in _splice_network.UNITS]
    assert units == [*[(11, 1)] * 4, *[(11, 4)] * 4, *[(21, 10)] * 4, *[(41, 25)] * 4]


@pytest.mark.parametrize("length", [1, 7, 40])
@torch.inference_mode()
def test_a_network_near_its_input_is_the_network_everywhere(tmp_path: Path, small: int, length: int) -> None:
    write_keras(tmp_path / "one.h5", SMALL)
    network = read_network(tmp_path / "one.h5")
    x_B4L = one_hot([sequence_of(length), sequence_of(length, seed=1)])
    expected = plainly(network, x_B4L, small)
    assert network(x_B4L).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    for flank in range(1, (length + 1) // 2):
        assert network(x_B4L, flank).numpy() == pytest.approx(expected[..., flank:-flank].numpy(), abs=1e-5)


@torch.inference_mode()
def test_the_network_of_full_size_is_that_of_the_paper(tmp_path: Path) -> None:
    write_keras(tmp_path / "one.h5", _splice_network.UNITS)
    network = read_network(tmp_path / "one.h5")
    x_B4L = one_hot([sequence_of(30)])
    assert network(x_B4L).numpy() == pytest.approx(plainly(network, x_B4L, 5_000).numpy(), abs=1e-4)


@torch.inference_mode()
def test_layers_are_read_by_their_number(tmp_path: Path, small: int) -> None:
    write_keras(tmp_path / "one.h5", SMALL)
    write_keras(tmp_path / "two.h5", SMALL, first=95)  # 95 to 106: their names do not sort as their numbers
    one, two = (read_network(tmp_path / name) for name in ("one.h5", "two.h5"))
    x_B4L = one_hot([sequence_of(9)])
    assert torch.equal(one(x_B4L), two(x_B4L))
    with h5py.File(tmp_path / "one.h5") as file:
        kernel = file["model_weights/conv1d_3/conv1d_3/kernel:0"][()]
    assert one.units[0].convolutions[0].weight[5, 2, 1].item() == kernel[1, 2, 5]  # type: ignore[index, union-attr]


def test_a_file_of_other_layers_raises(tmp_path: Path, small: int) -> None:
    write_keras(tmp_path / "fewer.h5", SMALL[:0])
    with pytest.raises(ControlError, match=r"holds 3 convolutions and 0 normalizations; expected 12 and 8"):
        read_network(tmp_path / "fewer.h5")
    write_keras(tmp_path / "other.h5", (*SMALL[:3], UnitShape(7, 1)))
    with pytest.raises(ControlError, match=r"holds layers of other shapes"):
        read_network(tmp_path / "other.h5")


class Reads(nn.Module):
    """A network that is sure of a donor where ``GA`` begins, and of an acceptor where ``GG`` does, ``ahead`` of it."""

    def __init__(self, ahead: int = 0) -> None:
        super().__init__()
        self.ahead = ahead

    def forward(self, x_B4L: Tensor, flank_bp: int = 0) -> Tensor:
        g, following = x_B4L[:, 2], nn.functional.pad(x_B4L, (0, 1))[..., 1:]
        found = torch.stack([1 - g, g * following[:, 2], g * following[:, 0]], dim=1)
        found = torch.roll(found, -self.ahead, dims=2)
        return found[..., flank_bp : found.shape[2] - flank_bp]


def test_the_ends_of_exons_become_the_ends_of_introns_on_both_strands() -> None:
    ensemble = Ensemble([Reads()], torch.device("cpu"))  # type: ignore[list-item]
    #          0123456789012345
    sequence = "TTGATTTTTTGGTTTT"  # the exon ends with G at 2, and the next one begins with G at 10
    assert called_classes(site_probabilities(ensemble, sequence)).tolist() == [8, 8, 8, 1, *[8] * 5, 3, *[8] * 6]
    mirrored = called_classes(site_probabilities(ensemble, reverse_complement(sequence)))
    assert mirrored.tolist() == [*[8] * 6, 7, *[8] * 5, 5, 8, 8, 8]


def test_probabilities_do_not_depend_on_the_batch_and_are_means(tmp_path: Path, small: int) -> None:
    for number in range(2):
        write_keras(tmp_path / f"{number}.h5", SMALL, seed=number)
    networks = [read_network(tmp_path / f"{number}.h5") for number in range(2)]
    both = Ensemble(networks, torch.device("cpu"))
    short, long = sequence_of(20), sequence_of(33, seed=1)
    together = both.probabilities([short, long])
    assert together[:1, :, :20] == pytest.approx(both.probabilities([short]), abs=1e-6)
    alone = [Ensemble([one], torch.device("cpu")).probabilities([long]) for one in networks]
    assert together[1:] == pytest.approx(np.mean(alone, axis=0), abs=1e-6)


@pytest.mark.parametrize(("ahead", "change"), [(0, 1.0), (50, 1.0), (51, 0.0)])
def test_a_change_counts_within_50_bp_of_the_variant(ahead: int, change: float) -> None:
    ensemble = Ensemble([Reads(ahead)], torch.device("cpu"))  # type: ignore[list-item]
    sequence = "T" * 150 + "TA" + "T" * 149
    ref, alt = alleles(sequence, 150, "G")  # makes GA
    kept = alleles(sequence, 150, "A")
    assert delta_scores(ensemble, [ref, kept[0]], [alt, kept[1]]).tolist() == [change, 0.0]


@pytest.mark.parametrize(("length", "offset"), [(11, 0), (11, 5), (11, 10), (301, 20), (1, 0)])
def test_a_variant_stands_in_the_middle_of_both_alleles(length: int, offset: int) -> None:
    sequence = sequence_of(length)
    ref, alt = alleles(sequence, offset, "n")
    middle = len(ref) // 2
    assert len(ref) == len(alt) == 2 * middle + 1
    assert (ref[middle], alt[middle]) == (sequence[offset], "n")
    assert ref.strip("N") == sequence.strip("N")
    assert [i for i in range(len(ref)) if ref[i] != alt[i]] == [middle]


def test_the_control_fits_tasks_with_splice_sites() -> None:
    control = CONTROLS.get("spliceai")
    fitting = [task.key for task in TASKS if control.why_not(task) is None]
    assert fitting == ["gene_finding", "variant_effects_disease"]


def test_without_the_package_the_control_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ControlError, match=r"'spliceai' needs is not installed; .*pip install --no-deps spliceai"):
        run_controls(RunConfig(task=("gene_finding",), data="no such folder", out=tmp_path), ["spliceai"])
    with pytest.raises(ControlError, match=r"found no networks of the package spliceai"):
        load_ensemble()


def test_the_networks_are_run_without_importing_their_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small: int
) -> None:
    site = tmp_path / "site"
    for number in range(5):
        write_keras(site / "spliceai" / "models" / f"spliceai{number + 1}.h5", SMALL, seed=number)
    (site / "spliceai" / "__init__.py").write_text("raise ImportError('no TensorFlow')")
    (site / "spliceai-1.3.1.dist-info").mkdir()
    stated_by_the_package = "Metadata-Version: 2.1\nName: spliceai\nVersion: 1.3.1\n"
    (site / "spliceai-1.3.1.dist-info" / "METADATA").write_text(stated_by_the_package)
    monkeypatch.syspath_prepend(site)
    assert [path.name for path in network_files()] == [f"spliceai{number + 1}.h5" for number in range(5)]
    tasks = ("gene_finding", "variant_effects_disease")
    data = write_data(tmp_path / "data", tasks, n=20)
    found = run_controls(RunConfig(task=tasks, data=str(data), out=tmp_path / "out", seeds=(0,)), ["spliceai"])
    genes, variants = (one.record for one in found)
    stated = genes.model["provenance"]
    assert isinstance(stated, dict)
    assert stated["version"] == "1.3.1"
    assert "chr20" in str(stated["trained_on"])
    content = stated["content_sha256"]
    assert content == networks_sha256()
    write_keras(site / "spliceai" / "models" / "spliceai3.h5", SMALL, seed=9)
    assert networks_sha256() not in (content, None), "another network is another run"
    assert isinstance(genes.training, dict)
    (learned,) = genes.training["runs"]  # type: ignore[union-attr]
    assert set(learned["auprc"]) == {"donor+", "acceptor+", "donor-", "acceptor-"}  # type: ignore[call-overload, index, arg-type]
    assert variants.coverage["scored"] == 20
    (site / "spliceai" / "models" / "spliceai3.h5").unlink()
    assert CONTROLS.get("spliceai").why_absent() is not None
