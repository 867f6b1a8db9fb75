"""A user's own model, as an object, a function or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.embedders import load_embedder
from bend_hf.embedders.user_model import UserEmbedder, load_user_model
from bend_hf.errors import AlignmentError, ConfigError, ModelError


class Own:
    """Five lines a user writes."""

    def embed(self, sequences: list[str]) -> list[list[list[float]]]:
        return [[[float(letter == "A"), 1.0] for letter in sequence] for sequence in sequences]


def test_own_object_is_an_embedder() -> None:
    own = UserEmbedder(Own())
    assert own("aC").tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert own.width == 2
    assert [tokens.embedding_bp.tolist() for tokens in own.embed_tokens(["ACG", "T"])] == [[1, 1, 1], [1]]


def test_own_function_is_an_embedder() -> None:
    assert UserEmbedder(lambda sequences: [np.ones((len(one), 3)) for one in sequences])("AC").shape == (2, 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([np.ones((2, 3))], r"shape \(2, 3\) for a sequence of 3 nucleotides"),
        ([np.ones(3)], r"shape \(3,\)"),
        ([], "gave 0 arrays for 1 sequences"),
    ],
)
def test_own_models_wrong_shapes_are_refused(answer: list[Any], reason: str) -> None:
    with pytest.raises(AlignmentError, match=reason):
        UserEmbedder(lambda sequences: answer)("ACG")


def test_own_models_width_must_stay() -> None:
    own = UserEmbedder(lambda sequences: [np.ones((len(one), len(one))) for one in sequences])
    with pytest.raises(AlignmentError, match="gave 3 columns where it gave 2 before"):
        own.embed(["AC", "ACG"])


def test_own_model_refuses_keywords_without_meaning() -> None:
    with pytest.raises(ConfigError, match="decides by itself on dtype, layer"):
        UserEmbedder(Own(), layer=3, dtype="float16")


def test_own_file_with_a_class_is_loaded_by_its_path(tmp_path: Path) -> None:
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
        ("class A:\n    def embed(self, s): ...\nclass B(A): ...\n", "found several: A, B"),
        ("1/0\n", "failed when it was run: ZeroDivisionError"),
    ],
)
def test_own_file_that_holds_no_model_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ModelError, match=reason):
        load_user_model(tmp_path / "mine.py")


def test_own_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_embedder(tmp_path / "mine.py")


def test_own_file_with_a_function_takes_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def embed(sequences):\n    return [[[1.0]] * len(s) for s in sequences]\n")
    assert load_user_model(tmp_path / "mine.py")("ACG").shape == (3, 1)
    with pytest.raises(ModelError, match="holds no class that could take checkpoint"):
        load_user_model(tmp_path / "mine.py", checkpoint="x")
