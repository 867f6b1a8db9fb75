"""bend-mini: a masked language model at two scales, a coarse body and a fine part at every nucleotide.

Checkpoints call the architecture ``TwoScale``. It is made to learn much on a CPU:

- a k-mer costs one lookup in a table, so the first layer sees k nucleotides at the cost of one;
- the body, dilated convolutions, has one position for every ``stride`` nucleotides;
- the fine part reads k-mers around one nucleotide and the body, and nothing of its neighbors' fine parts. In training
  it is computed only at the masked nucleotides (``scores_at``).

The embedding of a nucleotide is the output of the fine part, from which the language-model head predicts, followed by
the output of the body at its position.

Predicting masked nucleotides teaches the body little about the composition of a region. So it has a second objective
in training: it predicts how often each short k-mer occurs to the left and to the right (``SkipGram``; Mikolov et al.
2013). Afterwards both scales are whitened (``Whitening``): two or three directions of the embeddings vary more than all
others together, and a head trained on them would see little else. The language-model head reads the embeddings before
whitening.

>>> import torch
>>> config = BendMiniConfig(kmer=2, table_width=8, body_width=8, body_layers=1, local_width=8, fine_width=8)
>>> BendMiniForMaskedLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from bend_hf.embedders.networks._layers import masked, token_factor
from bend_hf.errors import ModelError

_CPU_TOKENS: Final = 2048  # tokens that the fine part computes at a time on a CPU, so that they stay in its caches
_ADDED_VARIANCE: Final = 1e-3  # the mean variance is 1, because the input comes from a norm


class Moments:
    """Sums over embeddings, in float64, from which mean and covariance follow."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.n = 0
        self.sum_D = torch.zeros(width, dtype=torch.float64, device=device)
        self.square_DD = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, x_ND: Tensor) -> None:
        """Add embeddings, shape (N, width)."""
        self.n += len(x_ND)
        self.sum_D += x_ND.sum(dim=0, dtype=torch.float64)
        self.square_DD += (x_ND.T @ x_ND).double()


class Whitening(nn.Module):
    """A linear map after which all directions vary about equally (Su et al. 2021, Whitening Sentence Representations).

    It is computed, not learned; the initial map is the identity.

    >>> x_ND = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 0.5]) + 3.0
    >>> moments, whitening = Moments(2, x_ND.device), Whitening(2)
    >>> moments.add(x_ND)
    >>> whitening.fit(moments)
    >>> [round(variance, 1) for variance in whitening(x_ND).var(dim=0).tolist()]
    [1.0, 1.0]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.map = nn.Parameter(torch.eye(width), requires_grad=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Whiten embeddings, shape (..., width) in and out."""
        whitened: Tensor = (x_ND - self.centre) @ self.map
        return whitened

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Compute the map. ``_ADDED_VARIANCE`` keeps it from amplifying directions that hardly vary."""
        mean_D = moments.sum_D / moments.n
        covariance_DD = moments.square_DD / moments.n - mean_D[:, None] * mean_D
        variance_D, direction_DD = torch.linalg.eigh(covariance_DD)
        scale_D = (variance_D.clamp(min=0.0) + _ADDED_VARIANCE).rsqrt()
        self.centre.copy_(mean_D)
        self.map.copy_((direction_DD * scale_D) @ direction_DD.T)


# The vocabulary of BEND's convolutional model: padding, mask and unknown, then a, c, g, t.
FIRST_NUCLEOTIDE: Final = 3
N_NUCLEOTIDES: Final = 4


class SkipGram(nn.Linear):
    """Skip-gram head: predicts from the body how often each k-mer occurs to the left and to the right of a position.

    Fractions of the four nucleotides in a a a c, on the left of the only position:

    >>> skip_gram = SkipGram(8, kmer=1, reach=1, stride=4)
    >>> skip_gram.fractions(torch.tensor([[3, 3, 3, 4]]))[0, 0].tolist()
    [0.75, 0.25, 0.0, 0.0]

    Args:
        width: Width of the body.
        kmer: Length of the k-mers.
        reach: Number of positions to either side that are counted, the position itself included.
        stride: Nucleotides per position.
    """

    def __init__(self, width: int, *, kmer: int, reach: int, stride: int) -> None:
        self.kmer, self.reach, self.stride = kmer, reach, stride
        super().__init__(width, 2 * N_NUCLEOTIDES**kmer)

    def loss(self, body_ND: Tensor, input_ids: Tensor, at_N: Tensor) -> Tensor:
        """Compute the cross-entropy of the k-mers, mean of both sides, in nats, shape (N,).

        A k-mer with a masked or unknown nucleotide is not counted; a side without k-mers has the loss 0.

        Args:
            body_ND: Output of the body at N tokens, shape (N, body width).
            input_ids: Token ids, int64, shape (batch, tokens).
            at_N: Index of the position of each of these tokens in the flattened batch, shape (N,).
        """
        fraction_N2K = self.fractions(input_ids).index_select(0, at_N)
        log_fraction_N2K = self(body_ND).float().view(len(body_ND), 2, -1).log_softmax(dim=-1)
        cost_N: Tensor = -(fraction_N2K * log_fraction_N2K).sum(dim=(1, 2)) / 2
        return cost_N

    def fractions(self, input_ids: Tensor) -> Tensor:
        """Compute the fraction of each k-mer left and right of every position, shape (batch * positions, 2, k-mers).

        A k-mer belongs to the position in which it starts.
        """
        n_kmers, n_tokens = N_NUCLEOTIDES**self.kmer, input_ids.shape[1]
        n_positions = -(-n_tokens // self.stride)
        nucleotide_BT = pad(
            input_ids - FIRST_NUCLEOTIDE, (0, n_positions * self.stride - n_tokens + self.kmer - 1), value=-1
        )
        kmer_BT = nucleotide_BT.unfold(1, self.kmer, 1)
        powers = N_NUCLEOTIDES ** torch.arange(self.kmer - 1, -1, -1, device=input_ids.device)
        position_T = torch.arange(n_positions * self.stride, device=input_ids.device) // self.stride
        row_B1 = torch.arange(len(input_ids), device=input_ids.device)[:, None]
        cell_BT = (row_B1 * n_positions + position_T) * n_kmers + (kmer_BT * powers).sum(dim=-1)
        cell = cell_BT[(kmer_BT >= 0).all(dim=-1)]
        counts = torch.zeros(len(input_ids) * n_positions * n_kmers, device=input_ids.device)
        counts.index_add_(0, cell, torch.ones_like(cell, dtype=counts.dtype))
        before_BPK = pad(counts.view(len(input_ids), n_positions, n_kmers).cumsum(dim=1), (0, 0, 1, 0))
        own_P = torch.arange(n_positions, device=input_ids.device)
        low_P, high_P = (own_P + 1 - self.reach).clamp(min=0), (own_P + self.reach).clamp(max=n_positions)
        left_BPK = before_BPK[:, own_P + 1] - before_BPK[:, low_P]
        right_BPK = before_BPK[:, high_P] - before_BPK[:, own_P]
        sides = torch.stack([left_BPK, right_BPK], dim=2).flatten(0, 1)
        fractions: Tensor = sides / sides.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return fractions


STORED_ARCHITECTURE: Final = "TwoScaleForMaskedLM"  # in the config.json of published checkpoints
UNKNOWN: Final = 4  # the fifth symbol: padding, masked, unknown, or beyond an end
N_SYMBOLS: Final = 5


class BendMiniConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is not typed
    """Sizes of the network; the defaults are those of bend-mini.

    Args:
        vocab_size: Number of tokens, V: padding, mask, unknown and the four nucleotides.
        kmer: Length of the k-mers; the table has 5 ** kmer entries.
        table_width: Width of the table.
        side_kmers: Number of k-mers that the fine part reads on either side of its nucleotide.
        stride: Nucleotides per position of the body; even.
        body_width: Width of the body.
        body_layers: Number of dilated layers of the body.
        detail_width: Width of what the fine part reads from the body.
        local_width: Width of the first layer of the fine part.
        fine_width: Width of the fine part. An embedding is ``hidden_size`` wide, fine part and body.
        fine_layers: Number of residual layers of the fine part.
        around_word: Length of the k-mers of the skip-gram objective.
        around_places: Number of positions to either side in which they are counted, the position itself included.
        around_weight: Weight of the skip-gram loss; that of masked nucleotides has the weight 1.
        initializer_range: Standard deviation of the initial weights of the last linear map in a residual layer.

    Raises:
        ModelError: The stride is odd, or the vocabulary has another size.
    """

    model_type = "TwoScale"

    def __init__(
        self,
        *,
        vocab_size: int = FIRST_NUCLEOTIDE + N_NUCLEOTIDES,
        kmer: int = 5,
        table_width: int = 64,
        side_kmers: int = 6,
        stride: int = 8,
        body_width: int = 104,
        body_layers: int = 7,
        detail_width: int = 48,
        local_width: int = 384,
        fine_width: int = 192,
        fine_layers: int = 1,
        around_word: int = 4,
        around_places: int = 32,
        around_weight: float = 2.0,
        initializer_range: float = 0.01,
        **common: object,
    ) -> None:
        if stride % 2 or vocab_size != FIRST_NUCLEOTIDE + N_NUCLEOTIDES:
            raise ModelError(
                f"this TwoScale configuration has stride {stride} and vocab_size {vocab_size}; "
                f"expected an even stride and {FIRST_NUCLEOTIDE + N_NUCLEOTIDES} tokens"
            )
        self.vocab_size = vocab_size
        self.kmer = kmer
        self.table_width = table_width
        self.side_kmers = side_kmers
        self.stride = stride
        self.body_width = body_width
        self.body_layers = body_layers
        self.detail_width = detail_width
        self.local_width = local_width
        self.fine_width = fine_width
        self.fine_layers = fine_layers
        self.around_word = around_word
        self.around_places = around_places
        self.around_weight = around_weight
        self.initializer_range = initializer_range
        self.tie_word_embeddings = False  # there are no embeddings of single nucleotides to tie
        super().__init__(**common)

    def to_dict(self) -> dict[str, object]:
        """Return the content of ``config.json``, in which the architecture has its published name."""
        content: dict[str, object] = super().to_dict()
        if content.get("architectures") == [BendMiniForMaskedLM.__name__]:
            content["architectures"] = [STORED_ARCHITECTURE]
        return content

    @property
    def hidden_size(self) -> int:
        """Embedding width, D."""
        return self.fine_width + self.body_width

    @property
    def body_taps(self) -> tuple[int, ...]:
        """Offsets of the k-mers that a position of the body reads, from its first nucleotide."""
        return (-self.stride // 2, 0, self.stride // 2)

    @property
    def fine_taps(self) -> tuple[int, ...]:
        """Offsets of the k-mers that the fine part of a nucleotide reads: left, right, and the one around it."""
        left = [-self.kmer * number for number in range(self.side_kmers, 0, -1)]
        right = [1 + self.kmer * number for number in range(self.side_kmers)]
        return (*left, *right, 1 - self.kmer // 2)


class KmerTable(nn.Embedding):
    """An embedding for each k-mer of five symbols; the first symbol is the most significant one."""

    def __init__(self, kmer: int, width: int) -> None:
        self.kmer = kmer
        super().__init__(N_SYMBOLS**kmer, width)

    def draw(self) -> None:
        """Draw initial weights: the embedding of a k-mer is a sum over its nucleotides, plus small noise.

        K-mers that share nucleotides start with similar embeddings, so that each learns from the others.
        """
        nn.init.normal_(self.weight, std=_KMER_STD)
        number = torch.arange(self.num_embeddings, device=self.weight.device)
        for offset in range(self.kmer):
            nucleotides = torch.empty(N_SYMBOLS, self.embedding_dim, device=self.weight.device)
            nn.init.normal_(nucleotides, std=_NUCLEOTIDE_STD)
            nucleotides[UNKNOWN] = 0.0
            self.weight.add_(nucleotides[(number // N_SYMBOLS**offset) % N_SYMBOLS])


_KMER_STD: Final = 0.05
_NUCLEOTIDE_STD: Final = 0.4  # six nucleotides give unit variance


class _ResidualEnd(nn.Linear):
    """The last linear map of a residual layer; small initial weights make the layer almost the identity."""


class _BodyLayer(nn.Module):
    """A residual layer: norm, dilated convolution of three taps, GELU, linear."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.taps = nn.Linear(3 * width, 2 * width)
        self.out = _ResidualEnd(2 * width, width)

    def forward(self, x_BPD: Tensor, token_BP1: Tensor | None) -> Tensor:
        """Run the layer, shape (batch, positions, width) in and out; zero for padding."""
        normed = pad(masked(self.norm(x_BPD), token_BP1), (0, 0, self.dilation, self.dilation))
        n_positions = x_BPD.shape[1]
        shifted = [normed[:, tap * self.dilation : tap * self.dilation + n_positions] for tap in range(3)]
        return masked(x_BPD + self.out(gelu(self.taps(torch.cat(shifted, dim=-1)))), token_BP1)


class _FineLayer(nn.Module):
    """A residual layer: norm, linear, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.out = _ResidualEnd(2 * width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Run the layer, shape (N, width) in and out."""
        added: Tensor = x_ND + self.out(gelu(self.wide(self.norm(x_ND))))
        return added


class _BendMiniPreTrained(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed
    config_class = BendMiniConfig
    base_model_prefix = "model"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, KmerTable):
            module.draw()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, _ResidualEnd):
            nn.init.normal_(module.weight, std=self.config.initializer_range)


@dataclass(frozen=True, kw_only=True)
class Scales:
    """The outputs of both scales at N tokens.

    Attributes:
        fine: Input and output of each layer of the fine part, the last one normalized; shape (N, fine width) each.
        body_MD: Output of the body at every position of the batch, shape (batch * positions, body width).
        at_N: Index of the position of each token, shape (N,).
    """

    fine: list[Tensor]
    body_MD: Tensor
    at_N: Tensor

    def body(self) -> Tensor:
        """Return the output of the body at the position of each token, shape (N, body width)."""
        return self.body_MD.index_select(0, self.at_N)


@dataclass(frozen=True, kw_only=True)
class _FineInputs:
    """What the fine part reads at N tokens.

    Attributes:
        nucleotides: Symbol of each token of the batch, shape (batch * tokens,).
        kmers: Number of the k-mer that starts at each nucleotide and around the sequence, of all sequences in a row.
        detail_MD: Detail of the body at each nucleotide, shape (batch * positions * stride, detail width).
        token_N: Index of each token in the flattened batch, shape (N,).
        kmer_N: Index of its first nucleotide in ``kmers``, shape (N,).
        detail_N: Its row of ``detail_MD``, shape (N,).
        body_MD: Output of the body at every position of the batch, shape (batch * positions, body width).
        body_N: Row of ``body_MD`` of each token, shape (N,).
    """

    nucleotides: Tensor
    kmers: Tensor
    detail_MD: Tensor
    token_N: Tensor
    kmer_N: Tensor
    detail_N: Tensor
    body_MD: Tensor
    body_N: Tensor

    def blocks(self) -> list[slice]:
        """Cut the tokens into blocks that are computed one after the other; one block with gradients or on a GPU."""
        on_cpu = self.token_N.device.type == "cpu" and not torch.is_grad_enabled()
        n_tokens = max(len(self.token_N), 1)
        size = _CPU_TOKENS if on_cpu else n_tokens
        return [slice(low, low + size) for low in range(0, n_tokens, size)]


class BendMiniModel(_BendMiniPreTrained):
    """Table, body and fine part. Parameters are named as in checkpoints."""

    def __init__(self, config: BendMiniConfig) -> None:
        super().__init__(config)
        self.table = KmerTable(config.kmer, config.table_width)
        self.into_body = nn.Linear(config.table_width * len(config.body_taps), config.body_width)
        self.body = nn.ModuleList(_BodyLayer(config.body_width, 2**layer) for layer in range(config.body_layers))
        self.body_norm = nn.LayerNorm(config.body_width, elementwise_affine=False)
        self.detail = nn.Linear(config.body_width, config.stride * config.detail_width)
        read = config.table_width * len(config.fine_taps) + config.detail_width
        self.join = nn.Linear(read, config.local_width)
        self.letter = nn.Embedding(N_SYMBOLS, config.local_width)
        self.into_fine = nn.Linear(config.local_width, config.fine_width)
        self.fine = nn.ModuleList(_FineLayer(config.fine_width) for _ in range(config.fine_layers))
        self.norm = nn.LayerNorm(config.fine_width, elementwise_affine=False)
        self.even_fine, self.even_body = Whitening(config.fine_width), Whitening(config.body_width)
        self._product: tuple[list[tuple[int, int, torch.dtype]], Tensor, Tensor] | None = None
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Embed each nucleotide.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens). Padding equals the end of the sequence.
            output_hidden_states: Also return input and output of each layer of the fine part, each with the body; only
                the last one is whitened.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), zero for padding; ``hidden_states`` if requested.
        """
        token_N = torch.arange(input_ids.numel(), device=input_ids.device)
        if output_hidden_states:
            scales = self.scales_at(input_ids, attention_mask, token_N)
            states = self.states(scales, input_ids, attention_mask)
            return BaseModelOutput(last_hidden_state=states[-1], hidden_states=states)
        x_ND = self.embeddings_at(input_ids, attention_mask, token_N)
        return BaseModelOutput(last_hidden_state=self._rows(x_ND, input_ids, attention_mask))

    def states(self, scales: Scales, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Join both scales of all tokens into the hidden states of all layers, the last layer last; see ``forward``."""
        states = [torch.cat([fine_ND, scales.body()], dim=-1) for fine_ND in scales.fine[:-1]]
        states.append(self._whitened(scales.fine[-1], self.even_body(scales.body_MD), scales.at_N))
        return tuple(self._rows(x_ND, input_ids, attention_mask) for x_ND in states)

    def _rows(self, x_ND: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Shape the states of all tokens like their batch, (batch, tokens, width), with zeros for padding."""
        token_BT1 = None if attention_mask is None else token_factor(attention_mask, self.table.weight)
        return masked(x_ND.view(*input_ids.shape, -1), token_BT1)

    def embeddings_at(self, input_ids: Tensor, attention_mask: Tensor | None, token_N: Tensor) -> Tensor:
        """Compute the embeddings of N selected tokens, equal to those of ``forward``, shape (N, width).

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens); None if nothing is padded.
            token_N: Indices of the tokens in the flattened batch, shape (N,).
        """
        read = self._fine_inputs(input_ids, attention_mask, token_N)
        body_MD = self.even_body(read.body_MD)
        blocks = read.blocks()
        if len(blocks) == 1:
            return self._whitened(self._fine(read, blocks[0])[-1], body_MD, read.body_N)
        x_ND: Tensor = body_MD.new_empty(len(token_N), self.config.hidden_size)  # without gradients: see ``blocks``
        for block in blocks:
            self._whitened(self._fine(read, block)[-1], body_MD, read.body_N[block], out=x_ND[block])
        return x_ND

    @torch.no_grad()
    def whiten(self, texts: Iterable[Tensor]) -> None:
        """Compute the whitening of both scales.

        Args:
            texts: Token ids, int64, shape (batch, tokens) each. Together they need many more tokens than an embedding
                is wide.
        """
        device = self.table.weight.device
        fine = Moments(self.config.fine_width, device)
        body = Moments(self.config.body_width, device)
        for ids_BT in texts:
            scales = self.scales_at(ids_BT, None, torch.arange(ids_BT.numel(), device=device))
            fine.add(scales.fine[-1])
            body.add(scales.body_MD)
        self.even_fine.fit(fine)
        self.even_body.fit(body)

    def _whitened(self, fine_ND: Tensor, body_MD: Tensor, body_N: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Whiten the fine part of N tokens, and join it with the body.

        Args:
            fine_ND: Output of the fine part, shape (N, fine width).
            body_MD: Output of the body, whitened before it is repeated for each token.
            body_N: Row of ``body_MD`` of each token, shape (N,).
            out: Where the embeddings are written, shape (N, width); None for a new tensor.
        """
        return torch.cat([self.even_fine(fine_ND), body_MD.index_select(0, body_N)], dim=-1, out=out)

    def scales_at(self, input_ids: Tensor, attention_mask: Tensor | None, token_N: Tensor) -> Scales:
        """Compute both scales at selected tokens; see ``embeddings_at`` for the arguments."""
        read = self._fine_inputs(input_ids, attention_mask, token_N)
        blocks = [self._fine(read, block) for block in read.blocks()]
        fine = blocks[0] if len(blocks) == 1 else [torch.cat(layer) for layer in zip(*blocks, strict=True)]
        return Scales(fine=fine, body_MD=read.body_MD, at_N=read.body_N)

    def _fine_inputs(self, input_ids: Tensor, attention_mask: Tensor | None, token_N: Tensor) -> _FineInputs:
        """Run the body; see ``embeddings_at`` for the arguments."""
        config = self.config
        n_tokens = input_ids.shape[1]
        n_positions = -(-n_tokens // config.stride)
        nucleotide_BT = input_ids - FIRST_NUCLEOTIDE
        known_BT = nucleotide_BT >= 0
        if attention_mask is not None:
            known_BT = known_BT & attention_mask.bool()
        symbols_BT = torch.where(known_BT, nucleotide_BT, UNKNOWN)
        before = max(config.kmer * config.side_kmers, config.stride, config.kmer)
        kmers_BW = self._kmers(symbols_BT, before, n_positions * config.stride - n_tokens + before + config.kmer)
        body_BPD = self._body(kmers_BW, before, n_positions, self._position_factor(attention_mask, n_positions))
        detail_MD = self.detail(body_BPD).view(-1, config.detail_width)

        row_N, column_N = token_N // n_tokens, token_N % n_tokens
        return _FineInputs(
            nucleotides=symbols_BT.reshape(-1),
            kmers=kmers_BW.reshape(-1),
            detail_MD=detail_MD,
            token_N=token_N,
            kmer_N=row_N * kmers_BW.shape[1] + column_N + before,
            detail_N=row_N * (n_positions * config.stride) + column_N,
            body_MD=body_BPD.flatten(0, 1),
            body_N=row_N * n_positions + column_N // config.stride,
        )

    def _fine(self, read: _FineInputs, block: slice) -> list[Tensor]:
        """Compute input and output of each layer of the fine part at some of the tokens."""
        taps_F = torch.tensor(self.config.fine_taps, device=read.kmers.device)
        kmers_NF = read.kmers[read.kmer_N[block, None] + taps_F]
        joined_ND = self._join(kmers_NF, read.detail_MD.index_select(0, read.detail_N[block]))
        fine = [self.into_fine(gelu(joined_ND + self.letter(read.nucleotides[read.token_N[block]])))]
        for layer in self.fine:
            fine.append(layer(fine[-1]))
        fine[-1] = self.norm(fine[-1])
        return fine

    def _join(self, kmers_NF: Tensor, detail_ND: Tensor) -> Tensor:
        """Run the first layer of the fine part on k-mers and on the detail of the body, shape (N, local width).

        Without training, on a CPU, a k-mer's share of the output is looked up instead of computed: the table times the
        layer's weights, once per tap.
        """
        if torch.is_grad_enabled() or detail_ND.device.type != "cpu" or detail_ND.dtype != torch.float32:
            joined: Tensor = self.join(torch.cat([self.table(kmers_NF).flatten(1), detail_ND], dim=-1))
            return joined
        table, detail_weight = self._products()
        rows_NF = kmers_NF + self.table.num_embeddings * torch.arange(kmers_NF.shape[1])
        read_ND = nn.functional.embedding_bag(rows_NF, table, mode="sum")
        return torch.addmm(read_ND.add_(self.join.bias), detail_ND, detail_weight.T)

    def _products(self) -> tuple[Tensor, Tensor]:
        """Return the table times the weights of each tap, shape (taps * k-mers, local width), and the other weights.

        They are computed again if a weight has changed.
        """
        weights = (self.table.weight, self.join.weight)
        state = [(weight.data_ptr(), weight._version, weight.dtype) for weight in weights]
        if self._product is None or self._product[0] != state:
            n_read = self.config.table_width * len(self.config.fine_taps)
            per_tap = self.join.weight[:, :n_read].reshape(-1, len(self.config.fine_taps), self.config.table_width)
            table = torch.einsum("kd,lfd->fkl", self.table.weight, per_tap).flatten(0, 1).contiguous()
            self._product = state, table, self.join.weight[:, n_read:]
        return self._product[1:]

    def _kmers(self, symbols_BT: Tensor, before: int, behind: int) -> Tensor:
        """Number the k-mers that start at each nucleotide, from ``before`` nucleotides in front, (batch, W)."""
        wide = pad(symbols_BT, (before, behind), value=UNKNOWN)
        n_kmers = wide.shape[1] - self.config.kmer + 1
        number = wide[:, :n_kmers]
        for offset in range(1, self.config.kmer):
            number = number * N_SYMBOLS + wide[:, offset : offset + n_kmers]
        return number

    def _position_factor(self, attention_mask: Tensor | None, n_positions: int) -> Tensor | None:
        """Mark the positions of the body that contain a token with 1, shape (batch, positions, 1)."""
        if attention_mask is None:
            return None
        filled = pad(attention_mask, (0, n_positions * self.config.stride - attention_mask.shape[1]))
        return token_factor(filled.view(len(filled), n_positions, -1).amax(dim=-1), self.table.weight)

    def _body(self, kmers_BW: Tensor, before: int, n_positions: int, token_BP1: Tensor | None) -> Tensor:
        """Run the body, with a final norm, shape (batch, positions, body width)."""
        config = self.config
        end = n_positions * config.stride
        taps = [kmers_BW[:, before + tap : before + tap + end : config.stride] for tap in config.body_taps]
        x_BPD = masked(self.into_body(self.table(torch.stack(taps, dim=-1)).flatten(2)), token_BP1)
        for layer in self.body:
            x_BPD = layer(x_BPD, token_BP1)
        normed_BPD: Tensor = self.body_norm(x_BPD)
        return normed_BPD


class _Head(nn.Module):
    """Linear scores of the scaled fine part.

    The scale belongs to the head and not to the norm of the model: predicting nucleotides needs few directions of an
    embedding, and a scale of the embedding itself would shrink the others, which other tasks may need.
    """

    def __init__(self, config: BendMiniConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.fine_width))
        self.shift = nn.Parameter(torch.zeros(config.fine_width))
        self.linear = nn.Linear(config.fine_width, config.vocab_size)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Score the vocabulary, (..., fine width) to (..., vocabulary)."""
        scores: Tensor = self.linear(x_ND * self.scale + self.shift)
        return scores


class BendMiniForMaskedLM(_BendMiniPreTrained):
    """The model with its language-model head."""

    def __init__(self, config: BendMiniConfig) -> None:
        super().__init__(config)
        self.model = BendMiniModel(config)
        self.cls = _Head(config)
        self.around = SkipGram(
            config.body_width, kmer=config.around_word, reach=config.around_places, stride=config.stride
        )
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> MaskedLMOutput:
        """Score the vocabulary at each token; see ``BendMiniModel.forward`` for the arguments.

        Returns:
            ``logits`` of shape (batch, tokens, vocabulary), and ``hidden_states`` if requested.
        """
        token_N = torch.arange(input_ids.numel(), device=input_ids.device)
        scales = self.model.scales_at(input_ids, attention_mask, token_N)
        states = self.model.states(scales, input_ids, attention_mask) if output_hidden_states else None
        return MaskedLMOutput(logits=self.cls(scales.fine[-1]).view(*input_ids.shape, -1), hidden_states=states)

    def scores_at(self, input_ids: Tensor, token_N: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Score the vocabulary at N selected tokens, without the fine part of the others, shape (N, vocabulary).

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            token_N: Indices of the tokens in the flattened batch, shape (N,).
            attention_mask: 1 for tokens, 0 for padding, shape (batch, tokens).
        """
        scores_NV: Tensor = self.cls(self.model.scales_at(input_ids, attention_mask, token_N).fine[-1])
        return scores_NV

    def whiten(self, texts: Iterable[Tensor]) -> None:
        """Compute the whitening; see ``BendMiniModel.whiten``."""
        self.model.whiten(texts)

    def learned_at(self, input_ids: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the scores of ``scores_at`` and the weighted skip-gram loss at the same tokens.

        Returns:
            Scores, shape (N, vocabulary), and losses in nats, shape (N,).
        """
        scales = self.model.scales_at(input_ids, None, token_N)
        cost_N = self.around.loss(scales.body(), input_ids, scales.at_N)
        return self.cls(scales.fine[-1]), self.config.around_weight * cost_N
