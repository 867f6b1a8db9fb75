"""A masked language model of two scales: k-mers looked up in a table, a body at every eighth nucleotide, fine rows.

>>> import torch
>>> config = BendMiniConfig(kmer=2, table_width=8, body_width=8, body_layers=1, local_width=8, fine_width=8)
>>> BendMiniForMaskedLM(config)(torch.tensor([[3, 4, 5, 6]])).logits.shape
torch.Size([1, 4, 7])

Made to learn much on a CPU. A k-mer costs one lookup, so the first layer sees k letters at the price of one; dilated
convolutions run on one place for every ``stride`` nucleotides; and the part that is as fine as the nucleotides looks at
its own place alone, so that training computes it at the hidden letters only (``scores_at``). A row holds both scales:
first what the fine part makes of a nucleotide, which is all that the language-model head reads, then what the body
says of the place that the nucleotide lies in.

Guessing letters alone teaches the body little of what a stretch is made of. It therefore learns one thing more: to
tell from its state how often each short word stands to the left and to the right (``learned_at``), as a skip-gram
model of words does (Mikolov et al. 2013).

Two or three directions of such rows vary more than all others together, and a head that is trained on them sees little
else. When training is over the rows are therefore evened out, each scale by itself, by a linear map that gives all
directions about the same variance over the training text (whitening; Su et al. 2021, Whitening Sentence
Representations). The language-model head reads the rows before that map.

A linear map after which all directions of some rows vary about alike (whitening; Su et al. 2021, Whitening Sentence
Representations for Better Semantics and Faster Retrieval).

>>> rows = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 0.5]) + 3.0
>>> moments, even = Moments(2, rows.device), Whitening(2)
>>> moments.add(rows)
>>> even.fit(moments)
>>> [round(variance, 1) for variance in even(rows).var(dim=0).tolist()]
[1.0, 1.0]

What a model may learn beside hidden letters: which short words stand around (skip-gram; Mikolov et al. 2013).

>>> around = SkipGram(8, word=1, places=1, stride=4)
>>> around.shares(torch.tensor([[3, 3, 3, 4]]))[0, 0].tolist()  # a a a c
[0.75, 0.25, 0.0, 0.0]
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

from bend_hf.embedders.networks._layers import masked, real_places
from bend_hf.errors import ModelError

_LEAST_VARIANCE: Final = 1e-3  # of rows whose mean variance is 1, as they come from a norm


class Moments:
    """Sums over rows, float64, from which mean and covariance follow."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.n = 0
        self.sum_D = torch.zeros(width, dtype=torch.float64, device=device)
        self.square_DD = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, x_ND: Tensor) -> None:
        """Some rows more."""
        self.n += len(x_ND)
        self.sum_D += x_ND.sum(dim=0, dtype=torch.float64)
        self.square_DD += (x_ND.T @ x_ND).double()


class Whitening(nn.Module):
    """x -> (x - centre) map; as it is made it changes nothing. It is computed and not learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.map = nn.Parameter(torch.eye(width), requires_grad=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Shape (..., width) in and out."""
        evened: Tensor = (x_ND - self.centre) @ self.map
        return evened

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Directions that hardly vary are not blown up: ``_LEAST_VARIANCE`` is added to the variance of each."""
        mean_D = moments.sum_D / moments.n
        covariance_DD = moments.square_DD / moments.n - mean_D[:, None] * mean_D
        variance_D, direction_DD = torch.linalg.eigh(covariance_DD)
        scale_D = (variance_D.clamp(min=0.0) + _LEAST_VARIANCE).rsqrt()
        self.centre.copy_(mean_D)
        self.map.copy_((direction_DD * scale_D) @ direction_DD.T)


# The tokenizer of BEND's convolutional model: padding, mask and unknown, then a, c, g, t.
FIRST_LETTER: Final = 3
N_LETTERS: Final = 4


class SkipGram(nn.Linear):
    """Tells from a state of the body how often each word stands to the left and to the right of its place.

    Args:
        width: Of the states.
        word: Nucleotides of a word.
        places: How many places to either side are counted, the place itself included.
        stride: Nucleotides to a place.
    """

    def __init__(self, width: int, *, word: int, places: int, stride: int) -> None:
        self.word, self.places, self.stride = word, places, stride
        super().__init__(width, 2 * N_LETTERS**word)

    def loss(self, body_ND: Tensor, input_ids: Tensor, at_N: Tensor) -> Tensor:
        """Cross-entropy of the words that are there, mean of both sides, in nats, shape (places,).

        A word that holds a hidden or unknown letter is not counted; a side without words costs nothing.

        Args:
            body_ND: States of the body at some tokens, shape (places, body width).
            input_ids: Token ids, int64, shape (batch, tokens).
            at_N: The place of the body of each of those tokens, counted through the batch, shape (places,).
        """
        share_N2W = self.shares(input_ids).index_select(0, at_N)
        log_share_N2W = self(body_ND).float().view(len(body_ND), 2, -1).log_softmax(dim=-1)
        cost_N: Tensor = -(share_N2W * log_share_N2W).sum(dim=(1, 2)) / 2
        return cost_N

    def shares(self, input_ids: Tensor) -> Tensor:
        """Share of each word to the left and right of every place of the batch, shape (batch * places, 2, words).

        A word belongs to the place in which it begins.
        """
        n_words, n_tokens = N_LETTERS**self.word, input_ids.shape[1]
        n_places = -(-n_tokens // self.stride)
        letters_BT = pad(input_ids - FIRST_LETTER, (0, n_places * self.stride - n_tokens + self.word - 1), value=-1)
        word_BT = letters_BT.unfold(1, self.word, 1)
        powers = N_LETTERS ** torch.arange(self.word - 1, -1, -1, device=input_ids.device)
        place_T = torch.arange(n_places * self.stride, device=input_ids.device) // self.stride
        row_B1 = torch.arange(len(input_ids), device=input_ids.device)[:, None]
        cell_BT = (row_B1 * n_places + place_T) * n_words + (word_BT * powers).sum(dim=-1)
        cell = cell_BT[(word_BT >= 0).all(dim=-1)]
        counts = torch.zeros(len(input_ids) * n_places * n_words, device=input_ids.device)
        counts.index_add_(0, cell, torch.ones_like(cell, dtype=counts.dtype))
        before_BPW = pad(counts.view(len(input_ids), n_places, n_words).cumsum(dim=1), (0, 0, 1, 0))
        own_P = torch.arange(n_places, device=input_ids.device)
        low_P, high_P = (own_P + 1 - self.places).clamp(min=0), (own_P + self.places).clamp(max=n_places)
        left_BPW = before_BPW[:, own_P + 1] - before_BPW[:, low_P]
        right_BPW = before_BPW[:, high_P] - before_BPW[:, own_P]
        sides = torch.stack([left_BPW, right_BPW], dim=2).flatten(0, 1)
        shares: Tensor = sides / sides.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return shares


UNKNOWN: Final = 4  # the fifth symbol: what is padded, masked, unknown or beyond an end
N_SYMBOLS: Final = 5


class BendMiniConfig(PreTrainedConfig):  # type: ignore[misc]
    """The sizes; the defaults are those of bend-mini.

    Args:
        vocab_size: Tokens, V: padding, mask, unknown and the four letters.
        kmer: Nucleotides of a k-mer; the table has 5 ** kmer rows.
        table_width: Width of the table.
        side_kmers: K-mers that the fine part reads on either side of its nucleotide.
        stride: Nucleotides to a place of the body; even.
        body_width: Width of the body.
        body_layers: Dilated layers of the body.
        detail_width: What the body gives each nucleotide.
        local_width: Width in which the fine part joins what it reads.
        fine_width: Width of the fine part; a row is ``hidden_size`` wide, fine part and body.
        fine_layers: Residual layers of the fine part.
        around_word: Nucleotides of the words around a place that its state has to tell.
        around_places: How many places to either side they are counted in, the place itself included.
        around_weight: What a nat of that counts in training, where a nat of a letter counts 1.
        initializer_range: Standard deviation of random linear weights that end a residual layer.

    Raises:
        ModelError: The stride is odd, or the vocabulary another.
    """

    model_type = "TwoScale"

    def __init__(
        self,
        *,
        vocab_size: int = FIRST_LETTER + N_LETTERS,
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
        if stride % 2 or vocab_size != FIRST_LETTER + N_LETTERS:
            raise ModelError(
                f"a TwoScale model has an even stride and {FIRST_LETTER + N_LETTERS} tokens; "
                f"this configuration has stride {stride} and vocab_size {vocab_size}"
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
        self.tie_word_embeddings = False  # no table holds single letters
        super().__init__(**common)

    @property
    def hidden_size(self) -> int:
        """Width of the rows, D."""
        return self.fine_width + self.body_width

    @property
    def body_taps(self) -> tuple[int, ...]:
        """Where the k-mers of a place of the body begin, counted from its first nucleotide."""
        return (-self.stride // 2, 0, self.stride // 2)

    @property
    def fine_taps(self) -> tuple[int, ...]:
        """Where the k-mers that a nucleotide reads begin, counted from it: left, right, and the one around it."""
        left = [-self.kmer * number for number in range(self.side_kmers, 0, -1)]
        right = [1 + self.kmer * number for number in range(self.side_kmers)]
        return (*left, *right, 1 - self.kmer // 2)


class KmerTable(nn.Embedding):
    """A vector for each k-mer of five symbols; the first symbol of a k-mer counts most in its number."""

    def __init__(self, kmer: int, width: int) -> None:
        self.kmer = kmer
        super().__init__(N_SYMBOLS**kmer, width)

    def draw(self) -> None:
        """Random weights that know the letters: a k-mer's vector is a sum over its letters, and a little of its own.

        K-mers that share letters begin alike, so that what is learned of one serves the others from the first step.
        """
        nn.init.normal_(self.weight, std=_OWN_STD)
        number = torch.arange(self.num_embeddings, device=self.weight.device)
        for place in range(self.kmer):
            letters = torch.empty(N_SYMBOLS, self.embedding_dim, device=self.weight.device)
            nn.init.normal_(letters, std=_LETTER_STD)
            letters[UNKNOWN] = 0.0
            self.weight.add_(letters[(number // N_SYMBOLS**place) % N_SYMBOLS])


_OWN_STD: Final = 0.05
_LETTER_STD: Final = 0.4  # six letters give vectors of unit variance


class _ResidualEnd(nn.Linear):
    """A linear map whose random weights are small, so that a residual layer begins as almost nothing."""


class _BodyLayer(nn.Module):
    """x + linear(gelu(convolution of three taps(norm(x))))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.taps = nn.Linear(3 * width, 2 * width)
        self.out = _ResidualEnd(2 * width, width)

    def forward(self, x_BPD: Tensor, real_BP1: Tensor | None) -> Tensor:
        """Shape (batch, places, width) in and out; zero where padded."""
        normed = pad(masked(self.norm(x_BPD), real_BP1), (0, 0, self.dilation, self.dilation))
        n_places = x_BPD.shape[1]
        shifted = [normed[:, tap * self.dilation : tap * self.dilation + n_places] for tap in range(3)]
        return masked(x_BPD + self.out(gelu(self.taps(torch.cat(shifted, dim=-1)))), real_BP1)


class _FineLayer(nn.Module):
    """x + linear(gelu(linear(norm(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.out = _ResidualEnd(2 * width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Shape (places, width) in and out."""
        added: Tensor = x_ND + self.out(gelu(self.wide(self.norm(x_ND))))
        return added


class _BendMiniPreTrained(PreTrainedModel):  # type: ignore[misc]
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
    """Both scales at N tokens.

    Attributes:
        fine: What the fine part reads and each of its layers gives, the last one normed; shape (N, fine width) each.
        body_MD: What the body says of every place of the batch, shape (batch * places, body width).
        at_N: The place of each token, shape (N,).
    """

    fine: list[Tensor]
    body_MD: Tensor
    at_N: Tensor

    def body(self) -> Tensor:
        """Of each token's place, shape (N, body width)."""
        return self.body_MD.index_select(0, self.at_N)


class BendMiniModel(_BendMiniPreTrained):
    """Table, body and fine part."""

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
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """One row a nucleotide.

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            attention_mask: 1 at tokens, 0 at padding, shape (batch, tokens); padding reads as the sequence's end.
            output_hidden_states: Also return what each layer of the fine part reads and gives, beside the body; all
                but the last are not evened out.

        Returns:
            ``last_hidden_state`` of shape (batch, tokens, width), zero where padded; ``hidden_states`` if asked for.
        """
        places_N = torch.arange(input_ids.numel(), device=input_ids.device)
        scales = self.scales_at(input_ids, attention_mask, places_N)
        states = self.states(scales, input_ids, attention_mask, every_layer=output_hidden_states)
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=states if output_hidden_states else None)

    def states(
        self, scales: Scales, input_ids: Tensor, attention_mask: Tensor | None, *, every_layer: bool
    ) -> tuple[Tensor, ...]:
        """The rows of all tokens, the last layer's behind those of the others; see ``forward``."""
        rows = [torch.cat([fine_ND, scales.body()], dim=-1) for fine_ND in scales.fine[:-1] if every_layer]
        real_BT1 = None if attention_mask is None else real_places(attention_mask, self.table.weight)
        return tuple(masked(rows_ND.view(*input_ids.shape, -1), real_BT1) for rows_ND in (*rows, self._evened(scales)))

    def rows_at(self, input_ids: Tensor, attention_mask: Tensor | None, place_N: Tensor) -> Tensor:
        """Rows of some tokens, equal to those of ``forward``; ``place_N`` counts through (batch, tokens).

        Returns:
            Shape (places, width).
        """
        return self._evened(self.scales_at(input_ids, attention_mask, place_N))

    @torch.no_grad()
    def whiten(self, texts: Iterable[Tensor]) -> None:
        """Computes the maps that even out the rows.

        Args:
            texts: Token ids, int64, shape (batch, tokens) each; together many more tokens than a row is wide.
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

    def _evened(self, scales: Scales) -> Tensor:
        """Both scales evened out, side by side; the body before it is repeated for each token."""
        body_MD = self.even_body(scales.body_MD)
        return torch.cat([self.even_fine(scales.fine[-1]), body_MD.index_select(0, scales.at_N)], dim=-1)

    def scales_at(self, input_ids: Tensor, attention_mask: Tensor | None, place_N: Tensor) -> Scales:
        """Both scales at some tokens; the arguments are those of ``rows_at``."""
        config = self.config
        n_tokens = input_ids.shape[1]
        n_places = -(-n_tokens // config.stride)
        letters_BT = input_ids - FIRST_LETTER
        known_BT = letters_BT >= 0
        if attention_mask is not None:
            known_BT = known_BT & attention_mask.bool()
        symbols_BT = torch.where(known_BT, letters_BT, UNKNOWN)
        before = max(config.kmer * config.side_kmers, config.stride, config.kmer)
        kmers_BW = self._kmers(symbols_BT, before, n_places * config.stride - n_tokens + before + config.kmer)
        body_BPD = self._body(kmers_BW, before, n_places, self._real_places(attention_mask, n_places))
        detail_MD = self.detail(body_BPD).view(-1, config.detail_width)

        row_N, column_N = place_N // n_tokens, place_N % n_tokens
        taps_F = torch.tensor(config.fine_taps, device=place_N.device)
        at_NF = (row_N * kmers_BW.shape[1] + column_N + before)[:, None] + taps_F
        read_ND = self.table(kmers_BW.reshape(-1)[at_NF]).flatten(1)
        detail_ND = detail_MD.index_select(0, row_N * (n_places * config.stride) + column_N)
        own_ND = self.letter(symbols_BT.reshape(-1)[place_N])
        fine = [self.into_fine(gelu(self.join(torch.cat([read_ND, detail_ND], dim=-1)) + own_ND))]
        for layer in self.fine:
            fine.append(layer(fine[-1]))
        fine[-1] = self.norm(fine[-1])
        return Scales(fine=fine, body_MD=body_BPD.flatten(0, 1), at_N=row_N * n_places + column_N // config.stride)

    def _kmers(self, symbols_BT: Tensor, before: int, behind: int) -> Tensor:
        """Number of the k-mer that begins at each place from ``before`` places ahead of the first token, (batch, W)."""
        wide = pad(symbols_BT, (before, behind), value=UNKNOWN)
        n_kmers = wide.shape[1] - self.config.kmer + 1
        number = wide[:, :n_kmers]
        for place in range(1, self.config.kmer):
            number = number * N_SYMBOLS + wide[:, place : place + n_kmers]
        return number

    def _real_places(self, attention_mask: Tensor | None, n_places: int) -> Tensor | None:
        """1 at places of the body that hold a token, shape (batch, places, 1)."""
        if attention_mask is None:
            return None
        filled = pad(attention_mask, (0, n_places * self.config.stride - attention_mask.shape[1]))
        return real_places(filled.view(len(filled), n_places, -1).amax(dim=-1), self.table.weight)

    def _body(self, kmers_BW: Tensor, before: int, n_places: int, real_BP1: Tensor | None) -> Tensor:
        """What the body says of each place, normed, shape (batch, places, body width)."""
        config = self.config
        end = n_places * config.stride
        taps = [kmers_BW[:, before + tap : before + tap + end : config.stride] for tap in config.body_taps]
        x_BPD = masked(self.into_body(self.table(torch.stack(taps, dim=-1)).flatten(2)), real_BP1)
        for layer in self.body:
            x_BPD = layer(x_BPD, real_BP1)
        normed_BPD: Tensor = self.body_norm(x_BPD)
        return normed_BPD


class _Head(nn.Module):
    """Linear scores of the scaled fine part.

    The scale is here and not in the model's norm: guessing letters needs few of a row's directions, and a scale that
    the rows went through would shrink the others, which other tasks may need.
    """

    def __init__(self, config: BendMiniConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(config.fine_width))
        self.shift = nn.Parameter(torch.zeros(config.fine_width))
        self.linear = nn.Linear(config.fine_width, config.vocab_size)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Shape (..., fine width) to (..., vocabulary)."""
        scores: Tensor = self.linear(x_ND * self.scale + self.shift)
        return scores


class BendMiniForMaskedLM(_BendMiniPreTrained):
    """The model with its language-model head."""

    def __init__(self, config: BendMiniConfig) -> None:
        super().__init__(config)
        self.model = BendMiniModel(config)
        self.cls = _Head(config)
        self.around = SkipGram(
            config.body_width, word=config.around_word, places=config.around_places, stride=config.stride
        )
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> MaskedLMOutput:
        """Scores of each token of the vocabulary at each place; see ``BendMiniModel.forward``.

        Returns:
            ``logits`` of shape (batch, tokens, vocabulary), and ``hidden_states`` if asked for.
        """
        places_N = torch.arange(input_ids.numel(), device=input_ids.device)
        scales = self.model.scales_at(input_ids, attention_mask, places_N)
        states = (
            self.model.states(scales, input_ids, attention_mask, every_layer=True) if output_hidden_states else None
        )
        return MaskedLMOutput(logits=self.cls(scales.fine[-1]).view(*input_ids.shape, -1), hidden_states=states)

    def scores_at(self, input_ids: Tensor, place_N: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Scores of the vocabulary at some tokens, without the fine part of the others, shape (places, vocabulary).

        Args:
            input_ids: Token ids, int64, shape (batch, tokens).
            place_N: Which tokens, counted through (batch, tokens).
            attention_mask: 1 at tokens, 0 at padding, shape (batch, tokens).
        """
        scores_NV: Tensor = self.cls(self.model.scales_at(input_ids, attention_mask, place_N).fine[-1])
        return scores_NV

    def whiten(self, texts: Iterable[Tensor]) -> None:
        """See ``BendMiniModel.whiten``."""
        self.model.whiten(texts)

    def learned_at(self, input_ids: Tensor, place_N: Tensor) -> tuple[Tensor, Tensor]:
        """Those scores, and what telling the words around each of these tokens costs beside them.

        Returns:
            Scores, shape (places, vocabulary), and weighted nats, shape (places,).
        """
        scales = self.model.scales_at(input_ids, None, place_N)
        cost_N = self.around.loss(scales.body(), input_ids, scales.at_N)
        return self.cls(scales.fine[-1]), self.config.around_weight * cost_N


# The name under "architectures" in the config.json of the packaged model.
TwoScaleForMaskedLM = BendMiniForMaskedLM
