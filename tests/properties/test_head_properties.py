"""Convolving tokens is repeating and convolving; padding and batches change nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bend_hf.errors import ConfigError
from bend_hf.tasks._spec import Head
from bend_hf.training.heads import build_head
from bend_hf.training.heads.cnn import convolve_tokens

TOKEN_LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=9)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of tokens, padded: token rows (batch, tokens, width) and the row of each nucleotide."""

    x_BTD: Tensor
    token_of_BL: Tensor
    lengths_bp: list[int]
    n_tokens: list[int]

    def alone(self, item: int) -> tuple[Tensor, Tensor]:
        """One sequence without its padding."""
        return (
            self.x_BTD[item : item + 1, : self.n_tokens[item]],
            self.token_of_BL[item : item + 1, : self.lengths_bp[item]],
        )


@st.composite
def batches(draw: st.DrawFn, *, width: st.SearchStrategy[int], one_bp: bool = False) -> Batch:
    """Batches of random tokens of random lengths; what is padded holds numbers that must not matter."""
    tokens = draw(st.lists(TOKEN_LENGTHS, min_size=1, max_size=3))
    if one_bp:
        tokens = [[1] * sum(lengths) for lengths in tokens]
    lengths_bp = [sum(lengths) for lengths in tokens]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x_BTD = torch.randn((len(tokens), max(map(len, tokens)), draw(width)), generator=generator, dtype=torch.float64)
    token_of_BL = torch.full((len(tokens), max(lengths_bp)), -1)
    for item, lengths in enumerate(tokens):
        rows = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        token_of_BL[item, : len(rows)] = rows
    return Batch(
        x_BTD=x_BTD, token_of_BL=token_of_BL, lengths_bp=lengths_bp, n_tokens=[len(lengths) for lengths in tokens]
    )


def repeated(batch: Batch) -> Tensor:
    """The plain way: each token's row at each of its nucleotides, zero where padded."""
    items = torch.arange(len(batch.x_BTD)).unsqueeze(1)
    rows_BLD = batch.x_BTD[items, batch.token_of_BL.clamp(min=0)]
    return rows_BLD * (batch.token_of_BL >= 0).unsqueeze(-1)


@settings(deadline=None)
@given(batches(width=st.integers(1, 12)), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_convolving_tokens_is_repeating_and_convolving(batch: Batch, kernel: int, channels: int, bias: bool) -> None:
    torch.manual_seed(kernel)
    convolution = nn.Conv1d(batch.x_BTD.shape[2], channels, kernel, padding="same", bias=bias, dtype=torch.float64)
    gradients = []
    outputs = []
    for way in ("tokens", "nucleotides"):
        batch.x_BTD.requires_grad_()
        output = (
            convolve_tokens(batch.x_BTD, batch.token_of_BL, convolution)
            if way == "tokens"
            else convolution(repeated(batch).transpose(1, 2))
        )
        outputs.append(output.detach())
        loss = (output * torch.arange(output.numel()).view_as(output).cos()).sum()
        gradients.append(torch.autograd.grad(loss, [batch.x_BTD, *convolution.parameters()]))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-9, rtol=0)
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-9, rtol=0)


@pytest.mark.parametrize("width", [5, 96], ids=["repeats", "maps"])
def test_convolving_tokens_is_exact_to_1e5_in_float32(width: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv1d(width, 64, 3, padding="same")
    x_BTD = torch.randn(2, 40, width)
    token_of_BL = torch.arange(40).repeat_interleave(6).expand(2, -1)
    plain = convolution(x_BTD.repeat_interleave(6, 1).transpose(1, 2))
    ours = convolve_tokens(x_BTD, token_of_BL, convolution)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


SPECS: list[Head] = [
    Head("cnn", hidden=6, kernel=3),
    Head("cnn", hidden=6, kernel=5, pool_bp=2),
    Head("cnn", hidden=6, kernel=4),
    Head("cnn", hidden=2, kernel=1),
    Head("linear"),
    Head("linear", pool_bp=3),
    Head("resnet", layers=4, channels=8, hidden=6),
    Head("resnet", layers=2, channels=8, hidden=6, pool_bp=2),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(deadline=None, max_examples=25)
@given(batch=batches(width=st.just(5)))
def test_padded_batch_scores_as_each_sequence_alone(spec: Head, batch: Batch) -> None:
    torch.manual_seed(0)
    head = build_head(spec, width=5, n_outputs=4).double()
    pool_bp = spec.settings.get("pool_bp") or 1
    assume(max(batch.lengths_bp) >= pool_bp)
    together = head(batch.x_BTD, batch.token_of_BL)
    for item, n_bp in enumerate(batch.lengths_bp):
        if n_bp < pool_bp:  # alone it has no window, and raises
            continue
        alone = head(*batch.alone(item))
        torch.testing.assert_close(together[item, : n_bp // pool_bp], alone[0], atol=1e-9, rtol=0)


@settings(deadline=None, max_examples=25)
@given(batches(width=st.just(7)))
def test_padding_gets_no_gradient(batch: Batch) -> None:
    torch.manual_seed(0)
    head = build_head(Head("cnn", hidden=3), width=7, n_outputs=2).double()
    batch.x_BTD.requires_grad_()
    logits = head(batch.x_BTD, batch.token_of_BL)
    (gradient,) = torch.autograd.grad(logits.square().sum(), batch.x_BTD)
    for item, n_tokens in enumerate(batch.n_tokens):
        assert not gradient[item, n_tokens:].any()
        assert gradient[item, :n_tokens].any()


@pytest.mark.parametrize("spec", [*SPECS, Head("basset", window_bp=48)], ids=str)
def test_one_output_keeps_its_axis(spec: Head) -> None:
    head = build_head(spec, width=5, n_outputs=1).eval()
    logits = head(torch.zeros(2, 48, 5), torch.arange(48).expand(2, -1))
    windows = 1 if spec.key == "basset" else 48 // (spec.settings.get("pool_bp") or 1)
    assert logits.shape == (2, windows, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_head_runs_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = build_head(Head("cnn", hidden=4, pool_bp=6), width=16, n_outputs=2)
    x_BTD = torch.randn(2, 5, 16)
    token_of_BL = torch.arange(5).repeat_interleave(6).expand(2, -1)
    exact = head(x_BTD, token_of_BL)
    half = head.to(dtype)(x_BTD.to(dtype), token_of_BL)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), exact, atol=0.02, rtol=0.05)


def test_window_longer_than_every_sequence_raises() -> None:
    head = build_head(Head("cnn", pool_bp=128), width=5, n_outputs=1)
    with pytest.raises(ConfigError, match=r"a label window is 128 nucleotides, but the longest sequence .* 100"):
        head(torch.zeros(1, 100, 5), torch.arange(100)[None])


@pytest.mark.parametrize("spec", [Head("resnet", layers=1, channels=8), Head("basset")], ids=["ResNet", "Basset"])
def test_supervised_baseline_refuses_embeddings(spec: Head) -> None:
    with pytest.raises(ConfigError, match="reads one-hot sequence of width 5, not embeddings of width 768"):
        build_head(spec, width=768, n_outputs=1)


def test_basset_refuses_another_length() -> None:
    head = build_head(Head("basset", window_bp=96), width=5, n_outputs=1)
    with pytest.raises(ConfigError, match="built for windows of 96 nucleotides, not 95"):
        head(torch.zeros(1, 95, 5), torch.arange(95)[None])


def test_basset_refuses_windows_that_pool_to_nothing() -> None:
    with pytest.raises(ConfigError, match="48 nucleotides or more, not 47"):
        build_head(Head("basset", window_bp=47), width=5, n_outputs=1)
