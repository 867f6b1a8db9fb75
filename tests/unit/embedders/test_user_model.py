"""A user's model, as an object, a function or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.embedders import load_embedder
from bend_hf.embedders.user_model import UserEmbedder, load_user_model
from bend_hf.errors import AlignmentError, ConfigError, ModelError


class User:
    """Five lines a user writes."""

    def embed(self, sequences: list[str]) -> list[list[list[float]]]:
        return [[[float(nucleotide == "A"), 1.0] for nucleotide in sequence] for sequence in sequences]


def test_object_is_an_embedder() -> None:
    embedder = UserEmbedder(User())
    assert embedder("aC").tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert embedder.width == 2
    assert [tokens.embedding_bp.tolist() for tokens in embedder.embed_tokens(["ACG", "T"])] == [[1, 1, 1], [1]]


def test_function_is_an_embedder() -> None:
    assert UserEmbedder(lambda sequences: [np.ones((len(one), 3)) for one in sequences])("AC").shape == (2, 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([np.ones((2, 3))], r"shape \(2, 3\) for a sequence of 3 nucleotides"),
        ([np.ones(3)], r"shape \(3,\)"),
        ([], "returned 0 arrays for 1 sequences"),
    ],
)
def test_wrong_shapes_raise(answer: list[Any], reason: str) -> None:
    with pytest.raises(AlignmentError, match=reason):
        UserEmbedder(lambda sequences: answer)("ACG")


def test_changing_width_raises() -> None:
    embedder = UserEmbedder(lambda sequences: [np.ones((len(one), len(one))) for one in sequences])
    with pytest.raises(AlignmentError, match="array of width 3 after arrays of width 2"):
        embedder.embed(["AC", "ACG"])


def test_options_that_do_not_apply_raise() -> None:
    with pytest.raises(ConfigError, match="options dtype, layer do not apply"):
        UserEmbedder(User(), layer=3, dtype="float16")


def test_file_with_a_class_is_loaded_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "class Mine:\n"
        "    def __init__(self, folder=None):\n"
        "        self.n = 2 if folder is None else int(folder)\n"
        "    def embed(self, sequences):\n"
        "        return [np.ones((len(s), self.n)) for s in sequences]\n"
    )
    assert load_embedder(path)("ACG").shape == (3, 2)
    assert load_embedder(str(path), checkpoint="4")("ACG").shape == (3, 4)
    first = load_user_model(path).identity
    path.write_text(path.read_text() + "\n")
    assert load_user_model(path).identity != first


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1\n", "found none"),
        ("class A:\n    def embed(self, s): ...\nclass B(A): ...\n", "found 2: A, B"),
        ("1/0\n", "failed when it was run .ZeroDivisionError"),
    ],
)
def test_file_without_exactly_one_model_raises(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ModelError, match=reason):
        load_user_model(tmp_path / "mine.py")


def test_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_embedder(tmp_path / "mine.py")


def test_file_with_a_function_takes_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def embed(sequences):\n    return [[[1.0]] * len(s) for s in sequences]\n")
    assert load_user_model(tmp_path / "mine.py")("ACG").shape == (3, 1)
    with pytest.raises(ModelError, match="holds no class that takes checkpoint"):
        load_user_model(tmp_path / "mine.py", checkpoint="x")
