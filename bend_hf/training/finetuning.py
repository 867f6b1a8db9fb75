"""Fine-tuning: the embedder's network and the head as one model that is trained, wholly or by low-rank adapters.

    embedder = open_for_tuning(load_embedder("dnabert6"), "lora")
    model = TunedModel(embedder, build_head(spec, embedder.width, n_outputs))
    split = Split(dataset=dataset, embeddings=TokenSource(dataset, embedder), targets=targets)

The model reads tokens instead of embeddings; all else, the loop, the batches and the checkpoints, stays the same.

>>> check_tunable("full")
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bend_hf.config import Tune
from bend_hf.embedders._alignment import Tokenized, output_tokens
from bend_hf.embedders.token_embeddings import pad_embeddings
from bend_hf.errors import ConfigError
from bend_hf.training.sharding import block_classes, is_sharded
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

_RANK: Final = 8  # Hu et al. 2022 (LoRA), table 6: 8 is as good as more
_ALPHA: Final = 16
_EVALUATED_TOKENS: Final = 16384  # tokens in one forward where no gradient is kept


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Tokens of some sequences, cut into P pieces that the network can take.

    Attributes:
        ids_PT: Token ids, int64, shape (pieces, tokens), padded on the right.
        mask_PT: 1 at tokens and 0 at padding, int64, of that shape.
        row_of_BT: Which token of all pieces laid end to end gives each row of a sequence, int64, shape (batch,
            rows); -1 where padded.
        token_of_BL: For each nucleotide its row, int64, shape (batch, nucleotides); -1 where padded.
    """

    ids_PT: NDArray[np.int64]
    mask_PT: NDArray[np.int64]
    row_of_BT: Ints
    token_of_BL: Ints


class TokenSource:
    """The tokens of a split.

    Args:
        dataset: The split, with a ``sequence`` column.
        embedder: Whose tokenizer cuts it.
    """

    def __init__(self, dataset: Dataset, embedder: Embedder) -> None:
        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")
        self._embedder = embedder

    def rows(self, rows: Ints) -> TokenRows:
        """The tokens of some items."""
        sequences = self._sequences[rows]["sequence"].to_pylist()
        return token_rows(self._embedder.tokenize(sequences), pad_id=self._embedder.pad_id)


def token_rows(tokenized: Tokenized, *, pad_id: int) -> TokenRows:
    """Tokenized sequences as rectangles."""
    lengths = np.diff(tokenized.chunk_starts)
    n_pieces, longest = len(lengths), int(lengths.max(initial=1))
    inside = np.arange(longest) < lengths[:, None]
    ids = np.full((n_pieces, longest), pad_id, np.int64)
    ids[inside] = tokenized.ids
    place = np.flatnonzero(inside)  # of every token, in the pieces laid end to end with their padding
    taken = output_tokens(tokenized, specials=False, per_nucleotide=True)
    layout = pad_embeddings(np.zeros((len(taken.token), 0), np.float32), taken.starts, taken.bp)
    counts = np.diff(taken.starts)
    row_of = np.full((len(counts), int(counts.max(initial=0))), -1, np.int64)
    row_of[np.arange(row_of.shape[1]) < counts[:, None]] = place[taken.token]
    return TokenRows(ids_PT=ids, mask_PT=inside.astype(np.int64), row_of_BT=row_of, token_of_BL=layout.token_of_BL)


class TunedModel(nn.Module):
    """An embedder's network under a head.

    Args:
        embedder: As ``open_for_tuning`` gives it.
        head: Takes ``(x_BTD, token_of_BL)``.
    """

    def __init__(self, embedder: Embedder, head: nn.Module) -> None:
        super().__init__()
        assert embedder.model is not None
        self._embedder = embedder
        self.encoder = embedder.model
        self.head = head
        # what FSDP gathers one by one; as a whole where processes may run the blocks unequally often
        self._no_split_modules = [] if embedder.equal_lengths else block_classes(embedder.model)

    def forward(self, ids_PT: Tensor, mask_PT: Tensor, row_of_BT: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score every label window; the arguments are the fields of ``TokenRows``.

        Returns:
            Logits, shape (batch, windows, outputs).
        """
        hidden_ND = self._hidden(ids_PT, mask_PT).flatten(0, 1)
        x_BTD = hidden_ND[row_of_BT.clamp(min=0)]
        logits: Tensor = self.head(x_BTD, token_of_BL)
        return logits

    def _hidden(self, ids_PT: Tensor, mask_PT: Tensor) -> Tensor:
        if self._embedder.equal_lengths:
            return self._piece_by_piece(ids_PT, mask_PT)
        if torch.is_grad_enabled() or is_sharded(self):  # spread weights: one run a forward, on every process
            return self._run(ids_PT, mask_PT)
        pieces = max(1, _EVALUATED_TOKENS // ids_PT.shape[1])
        parts = zip(torch.split(ids_PT, pieces), torch.split(mask_PT, pieces), strict=True)
        return torch.cat([self._run(ids, mask) for ids, mask in parts])

    def _run(self, ids_PT: Tensor, mask_PT: Tensor | None) -> Tensor:
        return self._embedder._hidden(ids_PT, mask_PT, self._embedder.layer)

    def _piece_by_piece(self, ids_PT: Tensor, mask_PT: Tensor) -> Tensor:
        """For networks that padding would change: pieces of one length together, padded afterwards."""
        lengths = mask_PT.sum(dim=1)
        made: Tensor | None = None
        for length in torch.unique(lengths).tolist():
            chosen = (lengths == length).nonzero()[:, 0]
            hidden = self._run(ids_PT[chosen, :length], None)
            if made is None:
                made = hidden.new_zeros(*ids_PT.shape, hidden.shape[-1])
            made = made.index_copy(0, chosen, nn.functional.pad(hidden, (0, 0, 0, ids_PT.shape[1] - length)))
        assert made is not None
        return made


def check_tunable(tune: Tune) -> None:
    """Makes sure that what it needs is installed.

    Raises:
        ConfigError: It is not.
    """
    if tune == "lora" and importlib.util.find_spec("peft") is None:
        raise ConfigError("--tune lora needs the package peft, which is not installed; pip install 'bend-hf[lora]'")


def check_shardable(embedder: Embedder) -> None:
    """Makes sure that the embedder's weights can be spread over processes.

    Raises:
        ConfigError: They cannot.
    """
    if not embedder.shardable:
        raise ConfigError(
            f"the weights of {embedder.name} cannot be spread over processes by FSDP, as two objects run them; start "
            "the run with accelerate_configs/multi_gpu.yaml instead"
        )


def open_for_tuning(embedder: Embedder, tune: Tune) -> Embedder:
    """A copy of the embedder whose network learns; the embedder itself stays as it is.

    Args:
        embedder: With its published weights.
        tune: ``full`` for all weights, ``lora`` for adapters beside every linear map.

    Raises:
        ConfigError: It has no network, or none that adapters fit to, or peft is not installed.
    """
    check_tunable(tune)
    if embedder.model is None:
        raise ConfigError(f"--tune {tune} trains the embedder's network, and {embedder.name} has none; use --tune head")
    opened = copy.copy(embedder)
    opened._runner = None
    network = copy.deepcopy(embedder.model)
    opened.model = _with_adapters(network, embedder) if tune == "lora" else network.requires_grad_(True)
    return opened


def _with_adapters(network: nn.Module, embedder: Embedder) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    linear = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not any(fnmatchcase(name, pattern) for pattern in embedder.head_keys)
    ]
    if not linear:
        raise ConfigError(
            f"--tune lora puts adapters beside linear maps, and {embedder.name} has none; use --tune full"
        )
    adapted: nn.Module = inject_adapter_in_model(
        LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules=linear, bias="none"), network
    )
    for name, weight in adapted.named_parameters():
        weight.requires_grad_("lora_" in name)
    return adapted
