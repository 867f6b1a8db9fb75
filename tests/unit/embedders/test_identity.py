"""A model that runs a user's code is recognized by everything that decides its embeddings."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bend_hf.embedders import load_embedder
from bend_hf.embedders._loaded_model import content_facts
from bend_hf.embedders._probe import identity_in, is_close
from bend_hf.embedders.cache import CacheSettings, open_embeddings
from bend_hf.embedders.cache.manage import list_entries
from bend_hf.embedders.user_model import UserEmbedder
from bend_hf.files import json_sha256
from bend_hf.user_code import state_of, weights_of
from tests.cached import small_dataset

FROM_FILE = """
import numpy as np
{imports}

class Lookup:
    def __init__(self, checkpoint=None):
        self.table = {table}

    def embed(self, sequences):
        return [np.array([[self.table["ACGTN".index(one)]] for one in sequence], np.float32) for sequence in sequences]
"""


class Scaled:
    """A model whose weights are set by whoever makes it."""

    def __init__(self, *weights: float) -> None:
        self.weights = np.array(weights, np.float32)

    def embed(self, sequences: list[str]) -> list[np.ndarray]:
        """Embed A by its weights, and everything else by 0."""
        return [np.array([self.weights * (one == "A") for one in sequence], np.float32) for sequence in sequences]


def key(model: object, folder: Path) -> str:
    """Return what the model is known by in a folder."""
    embedder = model if not hasattr(model, "embed") or hasattr(model, "probe") else UserEmbedder(model)  # type: ignore[arg-type]  # an object with embed
    return json_sha256(dict(identity_in(folder, embedder)))  # type: ignore[arg-type]  # an embedder


def of_file(path: Path, weights: str, *, imports: str = "", table: str) -> Callable[[], object]:
    path.write_text(FROM_FILE.format(imports=imports, table=table))
    (path.parent / "weights.txt").write_text(weights)
    return lambda: load_embedder(path)


@pytest.mark.parametrize(
    "table",
    [
        "[float(word) for word in open(CHECKPOINT).read().split()]",
        "np.loadtxt(CHECKPOINT).tolist()",
    ],
)
def test_weights_file_that_the_code_reads_counts(tmp_path: Path, table: str) -> None:
    table = table.replace("CHECKPOINT", "__file__.replace('mine.py', 'weights.txt')")
    model = of_file(tmp_path / "mine.py", "1 2 3 4 5", table=table)
    first = key(model(), tmp_path)
    assert key(model(), tmp_path) == first
    (tmp_path / "weights.txt").write_text("1 2 3 5 4")
    assert key(model(), tmp_path) != first


def test_checkpoint_counts_by_content_and_not_by_name(tmp_path: Path) -> None:
    of_file(tmp_path / "mine.py", "", table="[float(word) for word in open(checkpoint).read().split()]")
    for name, text in (("a.txt", "1 2 3 4 5"), ("b.txt", "1 2 3 4 6"), ("c.txt", "1 2 3 4 5")):
        (tmp_path / name).write_text(text)
    a, b, c = (key(load_embedder(tmp_path / "mine.py", checkpoint=tmp_path / f"{one}.txt"), tmp_path) for one in "abc")
    assert a == c
    assert a != b  # the probe has no N, so that only the file tells them apart


def test_module_that_the_file_imports_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    model = of_file(tmp_path / "mine.py", "", imports="import bend_hf_test_numbers", table="[1, 2, 3, 4, 5]")
    keys = []
    for text in ("VALUES = 1\n", "VALUES = 2\n"):
        (tmp_path / "bend_hf_test_numbers.py").write_text(text)
        keys.append(key(model(), tmp_path))
    sys.modules.pop("bend_hf_test_numbers")
    assert keys[0] != keys[1]


def test_classes_of_one_name_and_closures_are_told_apart(tmp_path: Path) -> None:
    def make(code: str, factor: int) -> object:
        scope: dict[str, type] = {"np": np}  # type: ignore[dict-item]  # a module beside the class
        exec(code, scope)
        return scope["Model"](factor)

    code = """
class Model:
    def __init__(self, factor):
        self.factor = factor
    def embed(self, sequences):
        return [np.full((len(one), 1), self.factor OPERATION, np.float32) for one in sequences]
"""
    plus, times = code.replace("OPERATION", "+ 2"), code.replace("OPERATION", "* 2")
    assert key(make(plus, 2), tmp_path) == key(make(plus, 2), tmp_path)
    assert key(make(plus, 2), tmp_path) != key(make(times, 2), tmp_path)  # both give 4
    assert key(make(plus, 2), tmp_path) != key(make(plus, 3), tmp_path)

    def closure(factor: int) -> Callable[[list[str]], list[np.ndarray]]:
        return lambda sequences: [np.full((len(one), 1), len(one) > 600 and factor, np.float32) for one in sequences]

    keys = [key(UserEmbedder(closure(factor)), tmp_path) for factor in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4), st.integers(0, 3))
def test_every_weight_of_an_object_counts(weights: list[float], changed: int) -> None:
    model, other = Scaled(*weights), Scaled(*weights)
    assert (state_of(model), weights_of(model)) == (state_of(other), weights_of(other))
    place = changed % len(weights)
    other.weights[place] = np.nextafter(other.weights[place], np.float32(1000))  # the least change there is
    assert state_of(model) != state_of(other)
    assert weights_of(model) != weights_of(other)


def test_module_trained_in_place_is_another_model(tmp_path: Path) -> None:
    class Wrapped:
        def __init__(self) -> None:
            self.network = torch.nn.Linear(1, 3)

        def embed(self, sequences: list[str]) -> list[np.ndarray]:
            return [self.network(torch.ones(len(one), 1)).detach().numpy() for one in sequences]

    model = Wrapped()
    embedder = UserEmbedder(model)
    first = key(embedder, tmp_path)
    assert key(embedder, tmp_path) == first
    with torch.no_grad():
        model.network.weight[0, 0] += 1e-6
    assert key(embedder, tmp_path) != first


def test_what_a_model_remembers_does_not_count(tmp_path: Path) -> None:
    class Remembers(Scaled):
        def __init__(self) -> None:
            super().__init__(1.0)
            self.calls, self.known = 0, {}  # type: ignore[var-annotated]  # sequence to rows

        def embed(self, sequences: list[str]) -> list[np.ndarray]:
            self.calls += 1
            for one in sequences:
                self.known[one] = super().embed([one])[0]
            return [self.known[one] for one in sequences]

    embedder = UserEmbedder(Remembers())
    first = key(embedder, tmp_path)
    embedder.embed(["ACGT"])
    assert key(embedder, tmp_path) == first == key(UserEmbedder(Remembers()), tmp_path)


SCRIPT = """
import numpy as np, sys
from pathlib import Path
from bend_hf.embedders._loaded_model import content_facts
from bend_hf.embedders._probe import identity_in
from bend_hf.embedders.user_model import UserEmbedder
class Model:
    settings = {"b": 1, "a": {3, 1, 2}}
    def __init__(self): self.names = {"x", "y", "z"}; self.lock = object()
    def embed(self, sequences): return [np.ones((len(one), 2)) for one in sequences if one not in {"a", "b"}]
print(sorted(identity_in(Path(sys.argv[1]), UserEmbedder(Model())).items()))
"""


def test_identity_is_the_same_in_every_process(tmp_path: Path) -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert "user_state" in answers.pop()


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (10, 5), elements=st.floats(-(2**20), 2**20, width=32)))
def test_probe_allows_for_other_devices_and_nothing_else(rows: np.ndarray) -> None:
    assert is_close(rows, rows)
    assert is_close(rows, rows * np.float32(1 + 1e-5))
    largest = np.abs(rows).max(axis=0)
    moved = rows.copy()
    moved[3, 2] += 0.01 * (largest[2] + largest.mean()) + 1e-3
    assert not is_close(rows, moved)


def test_cache_of_a_gpu_is_found_on_a_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same code and weights whose rows differ in the last digits are one model; other rows are another."""
    dataset, quiet = small_dataset(4), CacheSettings(folder=tmp_path, dtype="float32", show_progress=False)
    noise = {"factor": 1.0}

    class Device(Scaled):
        def embed(self, sequences: list[str]) -> list[np.ndarray]:
            return [rows * read(noise) for rows in super().embed(sequences)]

    made = []
    for factor in (1.0, 1.0 + 1e-6, 2.0, 1.0):
        noise["factor"] = factor
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            opened = open_embeddings(dataset, UserEmbedder(Device(1.0)), quiet)
        made.append((len(list_entries(tmp_path)), "is not the model that was used" in caplog.text))
        assert float(np.abs(opened.rows(np.arange(4)).x_BTD).max()) == pytest.approx(factor, abs=1e-5)
    assert made == [(1, False), (1, False), (2, True), (2, False)]


def test_model_that_draws_at_random_is_told_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draws = np.random.default_rng(0)

    class Drawn(Scaled):
        def embed(self, sequences: list[str]) -> list[np.ndarray]:
            return [rows + draws_of(draws, rows.shape) for rows in super().embed(sequences)]

    for n_said in (1, 2):  # a second run, with an embedder of its own, says it again
        embedder = UserEmbedder(Drawn(1.0))
        made = {identity_in(folder, embedder)["probe"] for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b")}
        assert len(made) == 3
        assert caplog.text.count("gave other embeddings of the same sequence when it was asked a second time") == n_said
    assert "Turn off dropout, put its networks in evaluation mode, and seed what it draws" in caplog.text
    assert "is not the model" not in caplog.text


def draws_of(draws: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers from a state that no attribute of the model holds."""
    return draws.normal(size=shape)


def read(noise: dict[str, float]) -> np.float32:
    """Read a number that no attribute of the model holds."""
    return np.float32(noise["factor"])


def test_device_of_a_model_does_not_count() -> None:
    class OnDevice(Scaled):
        def __init__(self, device: str, batch_size: int, window_bp: int) -> None:
            super().__init__(1.0)
            self.device, self.batch_size, self.where, self.window_bp = device, batch_size, device, window_bp

    assert state_of(OnDevice("cpu", 8, 64)) == state_of(OnDevice("cuda:1", 64, 64))
    assert state_of(OnDevice("cpu", 8, 64)) != state_of(OnDevice("cpu", 8, 128))


class Factor:
    """A model whose only setting is a number, which shows in its embeddings alone."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def embed(self, sequences: list[str]) -> list[np.ndarray]:
        """Embed A by the factor, and everything else by 0."""
        return [np.array([[self.factor * (one == "A")] for one in each], np.float32) for each in sequences]


def test_the_record_of_an_own_model_holds_a_hash_of_what_it_computes(tmp_path: Path) -> None:
    facts = [content_facts(identity_in(tmp_path, UserEmbedder(Factor(value)))) for value in (1.0, 1.0, 3.0)]
    assert facts[0] == facts[1]
    assert facts[0]["code_sha256"] != facts[2]["code_sha256"]
    assert content_facts(load_embedder("onehot").identity)["code_sha256"] is None
