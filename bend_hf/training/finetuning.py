"""Fine-tune the embedder's network and the head as one model, all weights or low-rank adapters.

    embedder = open_for_tuning(load_embedder("dnabert6"), "lora")
    model = TunedModel(embedder, build_head(spec, embedder.width, n_outputs))
    split = Split(dataset=dataset, embeddings=TokenSource(dataset, embedder), targets=targets)

The model reads tokens instead of embeddings. The loop, the batches and the checkpoints are the same as for a head.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
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
LORA: Final = MappingProxyType({"rank": _RANK, "alpha": _ALPHA})  # as the file of a kept head states it
_EVALUATED_TOKENS: Final = 16384  # tokens per forward pass without gradients


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """Tokens of some sequences, split into P chunks that fit the network's context.

    Attributes:
        ids_PT: Token ids, int64, shape (chunks, tokens), padded on the right.
        mask_PT: 1 at tokens and 0 at padding, int64, the same shape.
        row_of_BT: For each token of a sequence, its index in all chunks laid end to end, int64, shape (batch,
            tokens); -1 at padding.
        token_of_BL: Token of each nucleotide, int64, shape (batch, nucleotides); -1 at padding.
    """

    ids_PT: NDArray[np.int64]
    mask_PT: NDArray[np.int64]
    row_of_BT: Ints
    token_of_BL: Ints


class TokenSource:
    """The tokens of a split.

    Args:
        dataset: The split, with a ``sequence`` column.
        embedder: Its tokenizer is used.
    """

    def __init__(self, dataset: Dataset, embedder: Embedder) -> None:
        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")
        self._embedder = embedder

    def rows(self, rows: Ints) -> TokenRows:
        """Return the tokens of some items."""
        sequences = self._sequences[rows]["sequence"].to_pylist()
        return token_rows(self._embedder.tokenize(sequences), pad_id=self._embedder.pad_id)


def token_rows(tokenized: Tokenized, *, pad_id: int) -> TokenRows:
    """Pad tokenized sequences to rectangular arrays."""
    lengths = np.diff(tokenized.chunk_starts)
    n_chunks, longest = len(lengths), int(lengths.max(initial=1))
    inside = np.arange(longest) < lengths[:, None]
    ids = np.full((n_chunks, longest), pad_id, np.int64)
    ids[inside] = tokenized.ids
    place = np.flatnonzero(inside)  # of every token, in the chunks laid end to end with their padding
    taken = output_tokens(tokenized, specials=False, per_nucleotide=True)
    layout = pad_embeddings(np.zeros((len(taken.token), 0), np.float32), taken.starts, taken.bp)
    counts = np.diff(taken.starts)
    row_of = np.full((len(counts), int(counts.max(initial=0))), -1, np.int64)
    row_of[np.arange(row_of.shape[1]) < counts[:, None]] = place[taken.token]
    return TokenRows(ids_PT=ids, mask_PT=inside.astype(np.int64), row_of_BT=row_of, token_of_BL=layout.token_of_BL)


class TunedModel(nn.Module):
    """An embedder's network under a head.

    Args:
        embedder: As returned by ``open_for_tuning``.
        head: Takes ``(x_BTD, token_of_BL)``.
    """

    def __init__(self, embedder: Embedder, head: nn.Module) -> None:
        super().__init__()
        if embedder.model is None:
            raise ConfigError(f"{embedder.name} has no network to fine-tune; use --tune head")
        self._embedder = embedder
        self.encoder = embedder.model
        self.head = head
        # what FSDP gathers one by one; nothing if processes may run the blocks unequally often
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
            return self._by_length(ids_PT, mask_PT)
        if torch.is_grad_enabled() or is_sharded(self):  # sharded weights: one run per forward pass, on every process
            return self._run(ids_PT, mask_PT)
        n_chunks = max(1, _EVALUATED_TOKENS // ids_PT.shape[1])
        parts = zip(torch.split(ids_PT, n_chunks), torch.split(mask_PT, n_chunks), strict=True)
        return torch.cat([self._run(ids, mask) for ids, mask in parts])

    def _run(self, ids_PT: Tensor, mask_PT: Tensor | None) -> Tensor:
        return self._embedder._hidden(ids_PT, mask_PT, self._embedder.layer)

    def _by_length(self, ids_PT: Tensor, mask_PT: Tensor) -> Tensor:
        """Run chunks of one length together and pad afterwards, for networks whose output padding would change."""
        lengths = mask_PT.sum(dim=1)
        made = ids_PT.new_zeros(0, dtype=torch.float32)
        for length in torch.unique(lengths).tolist():
            chosen = (lengths == length).nonzero()[:, 0]
            hidden = self._run(ids_PT[chosen, :length], None)
            if not made.numel():
                made = hidden.new_zeros(*ids_PT.shape, hidden.shape[-1])
            made = made.index_copy(0, chosen, nn.functional.pad(hidden, (0, 0, 0, ids_PT.shape[1] - length)))
        return made


def check_tunable(tune: Tune) -> None:
    """Check that the packages for a kind of fine-tuning are installed.

    Raises:
        ConfigError: One is not installed.
    """
    if tune == "lora" and importlib.util.find_spec("peft") is None:
        raise ConfigError("--tune lora needs the package peft, which is not installed; pip install 'bend-hf[lora]'")


def check_shardable(embedder: Embedder) -> None:
    """Check that the embedder's weights can be sharded over processes.

    Raises:
        ConfigError: They cannot be sharded.
    """
    embedder.load()
    if not embedder.shardable:
        raise ConfigError(
            f"the weights of {embedder.name} cannot be sharded by FSDP, as two modules share them; start the run with "
            "accelerate_configs/multi_gpu.yaml instead"
        )


def open_for_tuning(embedder: Embedder, tune: Tune) -> Embedder:
    """Return a copy of the embedder with a trainable network; the embedder itself does not change.

    Args:
        embedder: With its published weights.
        tune: ``full`` for all weights, ``lora`` for an adapter on every linear layer.

    Raises:
        ConfigError: The embedder has no network, or no linear layer for adapters, or peft is not installed.
    """
    check_tunable(tune)
    embedder.load()
    if embedder.model is None:
        raise ConfigError(f"--tune {tune} trains the embedder's network, but {embedder.name} has none; use --tune head")
    if not embedder.tunable:
        raise ConfigError(
            f"--tune {tune} trains the embedder's network, but that of {embedder.name} computes no gradients; use "
            "--tune head"
        )
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
        raise ConfigError(f"--tune lora adds adapters to linear layers, but {embedder.name} has none; use --tune full")
    adapted: nn.Module = inject_adapter_in_model(
        LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules=linear, bias="none"), network
    )
    for name, weight in adapted.named_parameters():
        weight.requires_grad_("lora_" in name)
    return adapted
