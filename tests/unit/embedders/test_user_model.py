"""A user's model, as an object, a function or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
        ([np.ones((2, 3))], r"shape \(2, 3\) for the sequence 'ACG' of 3 nucleotides"),
        ([np.ones((2, 3, 1))], r"shape \(2, 3, 1\)"),
        ([np.float32(1)], r"shape \(\)"),
        ([np.ones((3, 0))], r"shape \(3, 0\) for the sequence 'ACG' of 3 nucleotides; expected embeddings of at least"),
        ([torch.ones((3, 0))], r"shape \(3, 0\)"),
        ([], "returned 0 arrays for 1 sequences"),
    ],
)
def test_wrong_shapes_raise(answer: list[Any], reason: str) -> None:
    with pytest.raises(AlignmentError, match=reason):
        UserEmbedder(lambda sequences: answer)("ACG")


MASKED = np.ma.masked_array(np.ones((3, 2)), mask=[[0, 0], [0, 1], [0, 0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "returned None for 1 sequences, the first of them the sequence 'ACG' of 3 nucleotides; expected a list"),
        ((one for one in [np.ones((3, 2))]), "returned a generator for 1 sequences"),
        (1.5, "returned a float for 1 sequences"),
        (np.float32(1), "returned a float32 for 1 sequences"),
        (np.array(1.0), "returned a ndarray for 1 sequences"),
        (torch.tensor(1.0), "returned a Tensor for 1 sequences"),
        ({"ACG": np.ones((3, 2))}, "returned a dict for 1 sequences"),
        ("A", "returned a str for 1 sequences"),
        (
            [None],
            "returned None for the sequence 'ACG' of 3 nucleotides; expected an array or a tensor of real numbers",
        ),
        ([(one for one in [1, 2])], "returned a generator for the sequence 'ACG'"),
        ([[[1.0, 2.0], [1.0], [1.0]]], "returned a list that is not an array .*inhomogeneous"),
        ([[torch.ones(2), torch.ones(1), torch.ones(2)]], r"a list of rows of the shapes \(1,\) and \(2,\)"),
        ([np.ones((3, 2), object)], "returned an array of dtype object"),
        ([np.full((3, 2), None)], "returned an array of dtype object"),
        ([[["1", "2"]] * 3], "returned an array of dtype <U1"),
        (["ACG"], "returned a str for the sequence"),
        ([np.zeros((3, 2), "datetime64[s]")], r"returned an array of dtype datetime64\[s\]"),
        ([np.ones((3, 2), np.complex64)], "dtype complex64 .*; expected real numbers. Return the real and the imagin"),
        ([torch.ones((3, 2), dtype=torch.complex64).conj()], "dtype complex64"),
        (
            [MASKED],
            r"returned an array with masked values for .*; expected a number in each place. Fill them, .*filled",
        ),
        ([list(MASKED)], "returned an array with masked values"),
        ([torch.ones((3, 2)).to_sparse()], "returned a tensor that is not an array .*Sparse"),
        ([torch.ones((3, 2), device="meta")], "returned a tensor that is not an array .*meta"),
        (
            [np.full((3, 2), 2**24 + 1)],
            "dtype int64 with numbers up to 16777217 .*; expected whole numbers up to 16777216",
        ),
        ([np.full((3, 2), -(2**63))], "numbers up to 9223372036854775808"),
        ([np.full((3, 2), 2**64 - 1, np.uint64)], "numbers up to 18446744073709551615"),
        ([torch.full((3, 2), 2**24 + 1)], "dtype int64 with numbers up to 16777217"),
        (
            [np.full((3, 2), -1e39)],
            r"dtype float64 with numbers up to 1e\+39 .*; expected numbers that float32 can hold",
        ),
    ],
)
def test_what_is_no_list_of_real_arrays_raises(answer: Any, reason: str) -> None:
    embedder = UserEmbedder(lambda sequences: answer)
    with pytest.raises(ModelError, match=f"^<lambda> .*{reason}") as raised:
        embedder("ACG")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rows", [np.eye(3, 2, dtype=bool), np.eye(3, 2, dtype=np.int8), np.eye(3, 2) * 2**24])
def test_numbers_that_float32_holds_are_taken_as_they_are(rows: np.ndarray) -> None:
    whole = rows.astype(np.int64)
    unmasked, gradients = (
        np.ma.masked_array(rows, mask=False),
        torch.tensor(rows, dtype=torch.float64, requires_grad=True),
    )
    for one in (
        rows,
        whole,
        rows.tolist(),
        unmasked,
        list(unmasked),
        torch.tensor(rows),
        torch.tensor(whole),
        gradients,
    ):
        found = UserEmbedder(lambda sequences, one=one: [one])("ACG")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows.astype(np.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_tensors_of_narrow_dtypes_keep_their_numbers(dtype: torch.dtype) -> None:
    found = UserEmbedder(lambda sequences: [torch.full((3, 2), -1.5).to(dtype)])("ACG")
    np.testing.assert_array_equal(found, np.full((3, 2), -1.5))


def test_non_finite_numbers_are_left_to_who_stores_them() -> None:
    rows = np.array([[np.nan], [np.inf], [1.0]])
    np.testing.assert_array_equal(UserEmbedder(lambda sequences: [rows])("ACG"), rows.astype(np.float32))


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


class Network(torch.nn.Module):
    """A torch module with dropout and gradients, in half precision on the way out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(8.0).reshape(4, 2))
        self.dropout = torch.nn.Dropout(0.5)

    def embed(self, sequences: list[str]) -> list[torch.Tensor]:
        """Return tensors that need gradients."""
        return [
            self.dropout(self.table["ACGT".index(one)].repeat(len(s), 1)).bfloat16() for s in sequences for one in s[:1]
        ]


def test_torch_module_runs_in_evaluation_mode_without_gradients() -> None:
    network = Network().train()
    embedder = UserEmbedder(network)
    assert embedder("CC").tolist() == [[2.0, 3.0], [2.0, 3.0]]
    assert embedder("CC").dtype == np.float32
    assert not network.training


def test_lists_of_tensors_and_one_batch_tensor_are_arrays() -> None:
    lists = UserEmbedder(lambda sequences: [[torch.ones(2, requires_grad=True)] * len(one) for one in sequences])
    assert lists("ACG").tolist() == [[1.0, 1.0]] * 3
    stacked = UserEmbedder(lambda sequences: torch.ones(len(sequences), len(sequences[0]), 2))  # type: ignore[arg-type,return-value]  # a tensor is a sequence of tensors
    assert stacked("ACG").tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize("as_tensor", [True, False])
def test_pooled_model_gives_one_embedding_per_sequence(as_tensor: bool) -> None:
    def embed(sequences: list[str]) -> list[Any]:
        pooled = [np.array([one.count("A"), len(one)], np.float32) for one in sequences]
        return [torch.from_numpy(one) for one in pooled] if as_tensor else pooled

    embedder = UserEmbedder(embed)
    assert embedder.width == 2
    assert embedder.pooled
    (one, two) = embedder.embed_tokens(["AAC", "G"])
    assert (one.values.tolist(), one.embedding_bp.tolist()) == ([[2.0, 3.0]], [3])
    assert (two.values.tolist(), two.embedding_bp.tolist()) == ([[0.0, 1.0]], [1])
    assert embedder.embed(["AAC"], upsample_embeddings=True)[0].tolist() == [[2.0, 3.0]] * 3


def test_model_that_pools_only_some_sequences_raises() -> None:
    with pytest.raises(AlignmentError, match="one embedding per sequence, as before"):
        UserEmbedder(lambda sequences: [np.ones(2) if len(s) > 2 else np.ones((2, 2)) for s in sequences]).embed(
            ["ACG", "AC"]
        )


@pytest.mark.parametrize(
    ("arguments", "checkpoint", "said"),
    [
        (", width", None, r"the class Mine cannot be called without arguments \(.*'width'\); give the arguments"),
        ("", "x", r"the class Mine cannot be called with a checkpoint only \(.*\); leave --checkpoint out"),
    ],
)
def test_a_class_that_cannot_be_called_so_is_named(
    tmp_path: Path, arguments: str, checkpoint: str | None, said: str
) -> None:
    (tmp_path / "mine.py").write_text(
        f"class Mine:\n    def __init__(self{arguments}):\n        pass\n"
        "\n    def embed(self, sequences):\n        pass\n"
    )
    with pytest.raises(ModelError, match=said) as raised:
        load_user_model(tmp_path / "mine.py", checkpoint=checkpoint)
    assert "\n" not in str(raised.value)
