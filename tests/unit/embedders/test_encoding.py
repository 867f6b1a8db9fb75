"""Byte-pair tokens are the same however many threads make them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bend_hf.embedders import _encoding
from bend_hf.embedders._bpe import BpeTokenizer, tiny_bpe

SEQUENCES = {
    "short ones": ["ACGTACGTGATT", "G", "TTTNACGN", "GATTACA"] * 20,
    "a long one among short ones": ["A", "ACGTGA" * 200, "NN", "T"],
    "one": ["ACGTGATT" * 100],
    "runs of N": ["N" * 40 + "ACGT", "A" + "N" * 12] * 15,
}


class Counted:
    """A tokenizer that keeps the threads which it was called in, and has its calls meet if there should be several."""

    def __init__(self, backend: object, together: threading.Barrier) -> None:
        self._backend, self._together = backend, together
        self.threads: set[int] = set()

    def encode_batch_fast(self, sequences: list[str], *, add_special_tokens: bool) -> list[object]:
        self.threads.add(threading.get_ident())
        self._together.wait(timeout=60)
        encode: Callable[..., list[object]] = self._backend.encode_batch_fast  # type: ignore[attr-defined]
        return encode(sequences, add_special_tokens=add_special_tokens)


def tokenizer(folder: Path) -> BpeTokenizer:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tiny_bpe("ACGT", gap=True)), encoding="utf-8")
    return BpeTokenizer.read(path)


def in_threads(monkeypatch: pytest.MonkeyPatch, n_threads: int) -> None:
    monkeypatch.setattr(_encoding, "_BP_PER_THREAD", 16)
    monkeypatch.setattr(_encoding, "usable_cores", lambda: n_threads)


def test_merges_are_never_left_out_at_random(tmp_path: Path) -> None:
    plain, drawn = tmp_path / "plain", tmp_path / "drawn"
    plain.mkdir()
    drawn.mkdir()
    file = tiny_bpe("ACGT", gap=False)
    expected = tokenizer(plain).stream(["ACGTACGTGATT" * 20])
    (drawn / "tokenizer.json").write_text(json.dumps({**file, "model": {**file["model"], "dropout": 0.5}}))  # type: ignore[dict-item]  # the model is a dict
    found = BpeTokenizer.read(drawn / "tokenizer.json").stream(["ACGTACGTGATT" * 20])
    assert len(found.ids) == len(expected.ids)
    assert found.token_bp.tolist() == expected.token_bp.tolist()


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_threads_do_not_change_the_tokens(
    sequences: Sequence[str], n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tokenizer(tmp_path)
    expected = one.stream(sequences)
    in_threads(monkeypatch, n_threads)
    found = one.stream(sequences)
    for name in ("ids", "token_bp", "starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (3, 3), (64, 8)])
def test_a_core_that_may_be_used_has_a_thread(
    cores: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer(tmp_path)
    in_threads(monkeypatch, cores)
    backend = Counted(whole.backend, threading.Barrier(threads))
    object.__setattr__(whole, "backend", backend)
    whole.stream(["ACGTACGTGATT"] * 96)
    assert len(backend.threads) == threads
