"""Evo 2: a causal language model of single nucleotides, StripedHyena 2 (bioRxiv 10.1101/2025.02.18.638918).

Plain PyTorch. Blocks of four kinds follow one another: short, medium and long convolutions (``hcs``, ``hcm``, ``hcl``)
and attention (``attn``). Parameters are named and laid out as in the published files, so that the rows of ``Wqkv`` are
(head, [q, k, v], head dimension).

All blocks are causal, and each filter has a state of fixed size. A block therefore reads a long sequence in windows and
carries its state from one to the next, so that the memory does not grow with the length except for the residual stream
and the keys and values of one attention block. The same states let sequences with a common beginning share it:

    prefix = model.run(ids_1P, keep_state=True).state
    model.run(ids_2T, state=prefix.take(torch.tensor([0, 0])))

The arithmetic of the published code in bfloat16 is kept: convolutions run in float32, and their results are rounded.

>>> config = Evo2Config(hidden_size=8, n_heads=2, inner_mlp_size=8, kinds=("hcs", "attn"), hcm_groups=4, hcs_groups=4)
>>> Evo2Model(config).run(torch.tensor([[65, 67, 71]]), ("norm",)).layers["norm"].shape
torch.Size([1, 3, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from bend_hf.embedders.networks._layers import (
    FFT_NUMBERS,
    fft_length,
    init_linear,
    keep_float32,
    short_convolution,
)
from bend_hf.embedders.networks.evo2_config import Evo2Config, Kind, block_of

# Tokens (batch times positions) that a block computes at a time, which bounds its memory.
WINDOW_TOKENS: Final = 8192
_POLE_NUMBERS: Final = 1 << 25  # numbers (channels * poles * positions) of the long filters that exist at a time
_QUERY_TOKENS: Final = 1024  # queries that attend to a carried state at a time; bounds the mask


@dataclass
class BlockState:
    """What a block carries from the tokens so far to the next ones; all tensors start with the batch.

    Attributes:
        projected: The last projections before their filter, shape (B, 2, 3D).
        filtered: The last inputs of a short or medium filter, shape (B, taps - 1, D).
        poles: The states of a long filter, float32, shape (B, D, poles).
        keys: Of all tokens so far, rotated, shape (B, heads, T, head dimension).
        values: The same for the values.
    """

    projected: Tensor | None = None
    filtered: Tensor | None = None
    poles: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None

    def take(self, index_N: Tensor) -> BlockState:
        """Select the states of some sequences; an index may occur more than once."""
        return BlockState(**{name: None if value is None else value[index_N] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Evo2State:
    """The state of the network after some tokens.

    Attributes:
        n_tokens: How many.
        blocks: State of each block.
    """

    n_tokens: int
    blocks: tuple[BlockState, ...]

    def take(self, index_N: Tensor) -> Evo2State:
        """Select the states of some sequences, which then continue them; an index may occur more than once."""
        return replace(self, blocks=tuple(block.take(index_N) for block in self.blocks))


class RMSNorm(nn.Module):
    """Divide by the root of the mean square plus eps; ``torch.nn.RMSNorm`` has eps inside the root."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Normalize the last axis."""
        root_BT1 = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True) * x_BTD.shape[-1] ** -0.5
        out: Tensor = x_BTD / (root_BT1 + self.eps) * self.scale
        return out


class Projections(nn.Linear):
    """A linear map without bias that can run in emulated FP8; ``fp8_scale`` are the scales of input and weight.

    With Transformer Engine, y = (e4m3(x s_x) e4m3(W s_w)^T) / (s_x s_w) with s = 448 / amax, where the maxima of
    earlier steps are stored with the checkpoint. Without stored scales each token has its own, from its own maximum, so
    that no token depends on the batch.
    """

    fp8_scale: Tensor | None

    def __init__(self, n_in: int, n_out: int, *, device: torch.device | None = None) -> None:
        super().__init__(n_in, n_out, bias=False, device=device)
        self.fp8 = False
        self.register_buffer("fp8_scale", None, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the map, in FP8 if ``self.fp8``."""
        if not self.fp8:
            return linear(input, self.weight)
        return fp8_linear(input, self.weight, self.fp8_scale)


FP8_MAX: Final = 448.0  # the largest number of torch.float8_e4m3fn


def fp8_linear(x_BTD: Tensor, weight_ED: Tensor, scales_2: Tensor | None) -> Tensor:
    """Multiply in emulated FP8 (E4M3): round input and weight to 8 bits, multiply, and undo the scales.

    Args:
        x_BTD: Input.
        weight_ED: Weight.
        scales_2: Scales of input and weight, float32; None: 448 divided by the maximum of each token and of the weight.

    Returns:
        Shape (batch, tokens, E), in the dtype of the input.
    """
    x32, weight32 = x_BTD.float(), weight_ED.float()
    if scales_2 is None:
        of_x = FP8_MAX / x32.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        of_weight = FP8_MAX / weight32.abs().amax()
    else:
        of_x, of_weight = scales_2[0], scales_2[1]
    x8, weight8 = _e4m3(x32 * of_x), _e4m3(weight32 * of_weight)
    native = x_BTD.is_cuda and torch.cuda.get_device_capability(x_BTD.device) >= (8, 9)
    y_BTE = multiply_fp8(x8.flatten(0, -2), weight8, native=native).view(*x_BTD.shape[:-1], -1)
    scaled_BTE: Tensor = y_BTE / (of_x * of_weight)
    return scaled_BTE.to(x_BTD.dtype)


def multiply_fp8(x_ND: Tensor, weight_ED: Tensor, *, native: bool) -> Tensor:
    """Multiply 8-bit numbers, (N, D) with (E, D), to float32 of shape (N, E).

    Args:
        x_ND: Input, ``torch.float8_e4m3fn``.
        weight_ED: Weight in the same type.
        native: Multiply in 8 bits, on devices that can; otherwise in float32.
    """
    if not native:
        return linear(x_ND.float(), weight_ED.float())
    n_rows = len(x_ND)
    if missing := -n_rows % 16:  # the rows are padded to a multiple of 16, as in the original
        x_ND = torch.cat([x_ND, x_ND.new_zeros(missing, x_ND.shape[1])])
    one = torch.ones((), device=x_ND.device)
    return torch._scaled_mm(x_ND, weight_ED.t(), scale_a=one, scale_b=one, out_dtype=torch.float32)[:n_rows]


def _e4m3(value: Tensor) -> Tensor:
    """Round to 8 bits; larger numbers become the largest, as in Transformer Engine."""
    return value.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


def _causal_fft(x_BCT: Tensor, filter_GK: Tensor) -> Tensor:
    """Convolve channels with filters of K taps, the first of which is the current token.

    Args:
        x_BCT: Float32, shape (batch, channels, T).
        filter_GK: Float32, shape (groups, K); C / G neighboring channels share a filter.

    Returns:
        Float32, shape (batch, channels, T).
    """
    batch, channels, n_tokens = x_BCT.shape
    filter_GK = filter_GK[:, :n_tokens]
    length = fft_length(n_tokens + filter_GK.shape[1] - 1)
    shared = channels // len(filter_GK)
    block = max(1, FFT_NUMBERS // (batch * length * shared))
    out = torch.empty_like(x_BCT)
    for first in range(0, len(filter_GK), block):
        rows = slice(first * shared, (first + block) * shared)
        spectrum_BGSF = torch.fft.rfft(x_BCT[:, rows], n=length).view(batch, -1, shared, length // 2 + 1)
        spectrum_BGSF = spectrum_BGSF * torch.fft.rfft(filter_GK[first : first + block], n=length)[:, None]
        out[:, rows] = torch.fft.irfft(spectrum_BGSF.flatten(1, 2), n=length)[..., :n_tokens]
    return out


def _behind(tail: Tensor | None, x_BTD: Tensor) -> Tensor:
    """Put the carried tokens in front of the new ones."""
    return x_BTD if tail is None else torch.cat([tail.to(x_BTD.dtype), x_BTD], dim=1)


class Filter(nn.Module):
    """The filters of a hyena block, always in float32; the published files hold all kinds under ``filter``."""

    def __init__(self, config: Evo2Config, kind: Kind) -> None:
        super().__init__()
        width = config.hidden_size
        self.kind = kind
        self.short_filter_weight = nn.Parameter(torch.randn(3 * width, 1, config.fir_taps) * config.fir_taps**-0.5)
        if kind == "hcl":
            # Tokens in which a pole decays. The device is named: transformers replaces torch.linspace while it loads a
            # model, and a device context that was entered first then does not know the function.
            time = 10 ** torch.linspace(0, 3, config.n_poles, device=self.short_filter_weight.device)
            self.log_poles = nn.Parameter((-1 / time).repeat(width, 1)[..., None])
            self.residues = nn.Parameter(torch.randn(width, config.n_poles) / (time * config.n_poles))
        else:
            groups, taps = (
                (config.hcm_groups, config.hcm_taps) if kind == "hcm" else (config.hcs_groups, config.hcs_taps)
            )
            self.h = nn.Parameter(torch.randn(groups, 1, taps) * taps**-0.5)
        if kind != "hcs":
            self.D = nn.Parameter(torch.randn(width) * 0.5)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Filter:
        super()._apply(keep_float32(fn), recurse)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return self

    def forward(self, u_BTD: Tensor, state: BlockState, *, keep: bool) -> Tensor:
        """Filter the gated input.

        Args:
            u_BTD: Shape (batch, tokens, width).
            state: Is read, and written if ``keep``.
            keep: Whether more tokens follow.

        Returns:
            Shape and dtype of ``u_BTD``.
        """
        if self.kind == "hcl":
            return self._long(u_BTD, state, keep=keep)
        taps_GK = self.h[:, 0]
        together_BTD = _behind(state.filtered, u_BTD)
        n_before = together_BTD.shape[1] - u_BTD.shape[1]
        if self.kind == "hcs":
            shared = u_BTD.shape[2] // len(self.h)
            y_BTD = short_convolution(together_BTD.float(), self.h.repeat_interleave(shared, 0), None)
            out_BTD = y_BTD[:, n_before:].to(u_BTD.dtype)
        else:
            y_BDT = _causal_fft(together_BTD.float().transpose(1, 2), taps_GK)[..., n_before:]
            out_BTD = torch.addcmul(y_BDT.transpose(1, 2), u_BTD.float(), self.D).to(u_BTD.dtype)
        if keep:
            state.filtered = together_BTD[:, 1 - taps_GK.shape[1] :].clone()
        return out_BTD

    def _long(self, u_BTD: Tensor, state: BlockState, *, keep: bool) -> Tensor:
        """Convolve with sums of exponentials; the tokens before the window act through the states of the poles."""
        batch, n_tokens, width = u_BTD.shape
        n_poles = self.residues.shape[1]
        y_BDT = torch.empty((batch, width, n_tokens), dtype=torch.float32, device=u_BTD.device)
        time_T = torch.arange(n_tokens, dtype=torch.float32, device=u_BTD.device)
        poles_BDS = u_BTD.new_empty((batch, width, n_poles), dtype=torch.float32) if keep else None
        block = max(1, _POLE_NUMBERS // (n_poles * max(n_tokens, batch)))
        for first in range(0, width, block):
            rows = slice(first, first + block)
            u_BCT = u_BTD[..., rows].float().transpose(1, 2)
            log_CS1, residues_CS = self.log_poles[rows], self.residues[rows]
            powers_CST = torch.exp(log_CS1 * time_T)
            filter_CT = (residues_CS[:, None] @ powers_CST)[:, 0]
            y_BCT = _causal_fft(u_BCT, filter_CT)
            if state.poles is not None:
                carried_BCS = state.poles[:, rows] * log_CS1[..., 0].exp()
                y_BCT += torch.einsum("bcs,cst->bct", carried_BCS * residues_CS, powers_CST)
                if poles_BDS is not None:
                    poles_BDS[:, rows] = carried_BCS * powers_CST[..., -1]
            elif poles_BDS is not None:
                poles_BDS[:, rows] = 0
            if poles_BDS is not None:
                poles_BDS[:, rows] += torch.einsum("bct,cst->bcs", u_BCT.flip(-1), powers_CST)
            y_BDT[:, rows] = y_BCT
        if poles_BDS is not None:
            state.poles = poles_BDS
        out_BTD: Tensor = torch.addcmul(y_BDT.transpose(1, 2).to(u_BTD.dtype), u_BTD, self.D.to(u_BTD.dtype))
        return out_BTD


class FeedForward(nn.Module):
    """A gated feed-forward layer; only the first block has an activation."""

    def __init__(self, config: Evo2Config, *, activated: bool) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.inner_mlp_size
        self.activated = activated
        self.l1 = nn.Linear(width, inner, bias=False)
        self.l2 = nn.Linear(width, inner, bias=False)
        self.l3 = nn.Linear(inner, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply the layer."""
        gate = self.l1(x_BTD)
        out: Tensor = self.l3((gelu(gate) if self.activated else gate) * self.l2(x_BTD))
        return out


class Rotary(nn.Module):
    """Rotary positions on the two halves of a head. The stored frequencies are rounded, and are used as stored."""

    inv_freq: Tensor

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
        self.register_buffer("inv_freq", config.rotary_base**-exponents)
        self.factor = config.rotary_factor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        super()._apply(keep_float32(fn), recurse)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return self

    def forward(self, x_BHTE: Tensor, first: int) -> Tensor:
        """Rotate queries or keys whose first token is at position ``first``."""
        time_T = torch.arange(first, first + x_BHTE.shape[2], dtype=torch.float32, device=x_BHTE.device)
        angle_TF = torch.outer(time_T / self.factor, self.inv_freq)
        cos, sin = angle_TF.cos().to(x_BHTE.dtype).float(), angle_TF.sin().to(x_BHTE.dtype).float()
        low, high = x_BHTE.float().chunk(2, dim=-1)
        return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1).to(x_BHTE.dtype)


class Attention(nn.Module):
    """Causal attention; the rows of ``Wqkv`` are (head, [q, k, v], head dimension), as in the published files."""

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.n_heads
        self.Wqkv = nn.Linear(width, 3 * width, bias=False)
        self.out_proj = nn.Linear(width, width)
        self.rotary_emb = Rotary(config)

    def project(self, y_BTD: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute rotated queries and keys, and values, each of shape (batch, heads, tokens, head dimension)."""
        rows = self.Wqkv(y_BTD).view(*y_BTD.shape[:2], self.n_heads, 3, -1).transpose(1, 2)
        query, key, value = rows.unbind(dim=3)
        return self.rotary_emb(query, first), self.rotary_emb(key, first), value

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend to all keys up to each query; the last query belongs to the last key. Shape (batch, tokens, width)."""
        n_before = keys.shape[2] - query.shape[2]
        if n_before == 0:
            mixed = scaled_dot_product_attention(query, keys, values, is_causal=True)
        else:
            mixed = torch.empty_like(query)
            key_T = torch.arange(keys.shape[2], device=query.device)
            for first in range(0, query.shape[2], _QUERY_TOKENS):
                part = query[:, :, first : first + _QUERY_TOKENS]
                query_T = torch.arange(first, first + part.shape[2], device=query.device) + n_before
                seen = key_T <= query_T[:, None]
                mixed[:, :, first : first + _QUERY_TOKENS] = scaled_dot_product_attention(
                    part, keys, values, attn_mask=seen
                )
        return mixed.transpose(1, 2).flatten(2)


def windows_of(x_BTD: Tensor) -> list[slice]:
    """Cut the tokens of a batch into windows of ``WINDOW_TOKENS`` tokens in all sequences together."""
    batch, n_tokens, _ = x_BTD.shape
    step = max(1, WINDOW_TOKENS // batch)
    return [slice(start, min(start + step, n_tokens)) for start in range(0, n_tokens, step)]


class Block(nn.Module):
    """A mixer and a feed-forward layer, each behind a norm and added to its input.

    Args:
        config: Sizes.
        number: Number of the block, from 0.
    """

    def __init__(self, config: Evo2Config, number: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.kind = config.kinds[number]
        self.pre_norm = RMSNorm(width, config.eps)
        self.post_norm = RMSNorm(width, config.eps)
        if self.kind == "attn":
            self.inner_mha_cls = Attention(config)
        else:
            self.projections = Projections(width, 3 * width)
            self.filter = Filter(config, self.kind)
            self.out_filter_dense = nn.Linear(width, width)
        self.mlp = FeedForward(config, activated=number == 0)

    def forward(self, x_BTD: Tensor, state: BlockState, first: int, *, keep: bool, mlp_out: Tensor | None) -> None:
        """Run the block on the residual stream, in place, window by window.

        Args:
            x_BTD: The residual stream; is changed.
            state: What the block carries; is changed if ``keep``, or if there are several windows.
            first: Position of the first token.
            keep: Whether ``state`` is needed afterwards.
            mlp_out: Receives the output of the feed-forward layer; None: it is not needed.
        """
        n_tokens = x_BTD.shape[1]
        windows = windows_of(x_BTD)
        mixed_BTD = self._attended(x_BTD, state, first, windows, keep=keep) if self.kind == "attn" else None
        for window in windows:
            part_BTD = x_BTD[:, window]
            if mixed_BTD is None:
                carries = keep or window.stop < n_tokens
                part_BTD += self._convolved(self.pre_norm(part_BTD), state, keep=carries)
            else:
                part_BTD += self.inner_mha_cls.out_proj(mixed_BTD[:, window])
            y_BTD = self.mlp(self.post_norm(part_BTD))
            if mlp_out is not None:
                mlp_out[:, window] = y_BTD
            part_BTD += y_BTD

    def _convolved(self, y_BTD: Tensor, state: BlockState, *, keep: bool) -> Tensor:
        projected_BTE = self.projections(y_BTD)
        together_BTE = _behind(state.projected, projected_BTE)
        n_before = together_BTE.shape[1] - y_BTD.shape[1]
        filtered_BTE = short_convolution(together_BTE.float(), self.filter.short_filter_weight, None)
        gates_BTD3 = filtered_BTE[:, n_before:].to(y_BTD.dtype).reshape(*y_BTD.shape, 3)
        query, key, value = gates_BTD3.unbind(dim=-1)
        if keep:
            taps = self.filter.short_filter_weight.shape[-1]
            state.projected = together_BTE[:, 1 - taps :].clone()
        out: Tensor = self.out_filter_dense(query * self.filter(key * value, state, keep=keep))
        return out

    def _attended(
        self, x_BTD: Tensor, state: BlockState, first: int, windows: Sequence[slice], *, keep: bool
    ) -> Tensor:
        """Compute attention before its output projection, shape (batch, tokens, width)."""
        attention = self.inner_mha_cls
        batch, n_tokens, _ = x_BTD.shape
        before = state.keys
        n_before = 0 if before is None else before.shape[2]
        per_head = x_BTD.shape[2] // attention.n_heads
        query = x_BTD.new_empty(batch, attention.n_heads, n_tokens, per_head)
        keys, values = (query.new_empty(batch, attention.n_heads, n_before + n_tokens, per_head) for _ in range(2))
        if before is not None and state.values is not None:
            keys[:, :, :n_before], values[:, :, :n_before] = before, state.values
        for window in windows:
            behind = slice(n_before + window.start, n_before + window.stop)
            normed_BTD = self.pre_norm(x_BTD[:, window])
            query[:, :, window], keys[:, :, behind], values[:, :, behind] = attention.project(
                normed_BTD, first + window.start
            )
        if keep:
            state.keys, state.values = keys, values
        return attention.attend(query, keys, values)


class BlockSource(Protocol):
    """Where the blocks of a network are if they do not stay on the device; see ``Evo2Model.source``."""

    @property
    def n_parameters(self) -> int:
        """Number of weights of all blocks."""
        ...

    def blocks(self, n: int) -> Iterator[Callable[..., None]]:
        """Yield the first n blocks in order, with their weights on the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Evo2Output:
    """Result of ``Evo2Model.run``.

    Attributes:
        layers: The layers that were asked for, by original name, shape (B, T, D) each.
        state: State after the tokens; None if it was not asked for.
    """

    layers: dict[str, Tensor] = field(default_factory=dict)
    state: Evo2State | None = None


class Evo2Model(nn.Module):
    """The network; its head is the transpose of the input embeddings.

    Attributes:
        source: Brings the blocks to the device if they do not stay there; None: they are ``self.blocks``.
    """

    def __init__(self, config: Evo2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding_layer = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, number) for number in range(len(config.kinds)))
        self.norm = RMSNorm(config.hidden_size, config.eps)
        self.source: BlockSource | None = None
        init_linear(self.embedding_layer, 1.0)
        for block in self.blocks:
            for module in block.modules():
                init_linear(module, 0.5 * config.hidden_size**-0.5)

    def emulate_fp8(self, scales: Mapping[str, Tensor]) -> None:
        """Run the projections of the hyena blocks in emulated FP8.

        Args:
            scales: Stored scales of input and weight, by name, such as ``blocks.0.projections.fp8_scale``.
        """
        for name, module in self.named_modules():
            if isinstance(module, Projections):
                module.fp8 = True
                module.fp8_scale = scales.get(f"{name}.fp8_scale")

    @torch.no_grad()
    def run(
        self,
        ids_BT: Tensor,
        names: Collection[str] = (),
        *,
        state: Evo2State | None = None,
        keep_state: bool = False,
    ) -> Evo2Output:
        """Compute layers, without gradients. Blocks behind the last one that is needed are left out.

        Args:
            ids_BT: Token ids, int64, shape (batch, tokens). Padding on the right changes nothing before it.
            names: Original names of the layers to return, see ``evo2_config``; nothing else is kept.
            state: State after the tokens before these; None: there are none. It stays as it is.
            keep_state: Whether to return the state.

        Returns:
            The layers, and the state.
        """
        n_blocks = len(self.config.kinds)
        numbers = [number for name in names if (number := block_of(name)) is not None]
        depth = n_blocks if keep_state or "norm" in names else max(numbers, default=-1) + 1
        first = 0 if state is None else state.n_tokens
        states = [BlockState() for _ in range(depth)] if state is None else [replace(one) for one in state.blocks]
        x_BTD = self.embedding_layer(ids_BT)
        found = {"embedding_layer": x_BTD.clone()} if "embedding_layer" in names else {}
        blocks: Iterator[Callable[..., None]] = (
            iter(self.blocks[:depth]) if self.source is None else self.source.blocks(depth)
        )
        for number, block in enumerate(blocks):
            name = f"blocks.{number}"
            mlp_out = torch.empty_like(x_BTD) if f"{name}.mlp.l3" in names else None
            block(x_BTD, states[number], first, keep=keep_state, mlp_out=mlp_out)
            if mlp_out is not None:
                found[f"{name}.mlp.l3"] = mlp_out
            if name in names:
                found[name] = x_BTD.clone() if number + 1 < depth or "norm" in names else x_BTD
        if "norm" in names:
            for window in windows_of(x_BTD):
                x_BTD[:, window] = self.norm(x_BTD[:, window])
            found["norm"] = x_BTD
        after = Evo2State(n_tokens=first + ids_BT.shape[1], blocks=tuple(states)) if keep_state else None
        return Evo2Output(layers=found, state=after)

    def scores(self, x_BTD: Tensor) -> Tensor:
        """Apply the head to the output of the final norm: (..., width) to (..., vocabulary)."""
        return linear(x_BTD, self.embedding_layer.weight)
