"""What attention is masked with: nothing in a batch of one length, so that its fastest kernel runs.

``BatchRunner`` makes such batches where it can; the others are padded by little.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bend_hf.embedders import MODELS
from bend_hf.embedders._batching import CANDIDATE_TOKENS, batch_end
from bend_hf.embedders.networks.dnabert2 import ALIGNED, AttentionBias
from tests.contract.test_embedders import DISTINCT, tiny_model

SEQUENCE: Final = "ACGTTGACGATTGACGTGGACTGA"
# One key per family with attention through scaled_dot_product_attention.
ATTENDS: Final = (
    *("dnabert6", "evo2_1b_base", "gena-lm-bert-base", "generanno-eukaryote-0.5b", "generator-1.2b"),
    *("genomeocean-100m", "grover", "marindna", "mistral-dna", "mutbert", "nt_transformer_1000g"),
    *("nt_transformer_v2_100m", "ntv3-100m", "omni-dna-116m"),
)
# Attention with a bias or a window, which takes the form of a mask.
MASKED: Final = {"dnabert-s": "ALiBi", "modernbert-dna": "local attention in most layers"}


class Attention(TorchFunctionMode):
    """The masks that attention is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            self.masks.append(kwargs.get("attn_mask", args[3] if len(args) > 3 else None))
        return func(*args, **kwargs)


def masks_of(key: str, sequences: list[str]) -> list[Tensor | None]:
    embedder = tiny_model(key)
    with Attention() as attention:
        embedder.embed_tokens(sequences)
    return attention.masks


@pytest.mark.parametrize("key", ATTENDS)
def test_attention_has_no_mask_in_a_batch_of_one_length(key: str) -> None:
    masks = masks_of(key, [SEQUENCE] * 3)
    assert masks
    assert all(mask is None for mask in masks)


def test_the_bias_of_alibi_is_shared_by_a_batch_of_one_length() -> None:
    masks = masks_of("dnabert-s", [SEQUENCE] * 3)
    assert masks
    assert all(mask is not None and len(mask) == 1 for mask in masks)
    assert len({mask.data_ptr() for mask in masks if mask is not None}) == 1  # and by all layers


def test_every_family_that_calls_attention_is_listed() -> None:
    """A new family is added to ATTENDS, or to MASKED with its reason."""
    listed = {MODELS.get(key).embedder for key in (*ATTENDS, *MASKED)}
    others = {MODELS.get(key).embedder: key for key in DISTINCT if MODELS.get(key).embedder not in listed}
    assert {embedder for embedder, key in others.items() if masks_of(key, [SEQUENCE])} == set()


@pytest.mark.parametrize("n_tokens", [1, 7, 8, 13, 24])
@pytest.mark.parametrize("padded", [False, True])
def test_rows_of_the_bias_are_aligned(n_tokens: int, padded: bool) -> None:
    mask = torch.ones(2, n_tokens, dtype=torch.int64)
    mask[1, n_tokens // 2 :] = 0
    bias = AttentionBias(n_tokens, 3, mask if padded else None, like=torch.zeros(1))
    found = bias.of(bias.blocks[0])
    assert found.shape == (2 if padded else 1, 3, n_tokens, n_tokens)
    assert all(stride % ALIGNED == 0 for stride in found.stride()[:-1])
    assert bool(torch.isfinite(found[0]).all())
    assert not padded or bool(torch.isinf(found[1, :, :, n_tokens // 2 :]).all())


@pytest.mark.parametrize(("mean", "deviation", "n"), [(112, 3, 4096), (404, 8, 4096), (1280, 10, 256)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_padding_costs_less_than_three_per_cent(mean: float, deviation: float, n: int, device: str) -> None:
    """Tokens of random sequences of 512 and 6,000 bp in byte pairs of 4,096, and in GROVER's of 600."""
    lengths = np.sort(np.random.default_rng(0).normal(mean, deviation, n).round().astype(np.int64))[::-1]
    first, padded = 0, 0
    while first < n:
        last = batch_end(lengths, first, budget_tokens=CANDIDATE_TOKENS[device][0])
        padded += int(lengths[first]) * (last - first)
        first = last
    assert padded < 1.03 * lengths.sum()
