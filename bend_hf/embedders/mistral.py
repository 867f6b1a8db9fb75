"""Mistral and Mixtral over byte pairs: GenomeOcean and Mistral-DNA.

    embedder = load_embedder("genomeocean-4b")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)          # (9, width)

The configuration says which of the two networks of transformers a checkpoint has. The tokens, and what frames a
sequence, are those of ``tokenizer.json``. GenomeOcean's configuration states more positions than the models were
trained on, so its entries have a shorter context. Both protocols give the same embeddings. Remote code that may lie
next to the weights is not run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._bpe import vocabulary_size
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._stock import BpeStockEmbedder, causal_sizes, tiny_framed_bpe
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_ARCHITECTURES: Final = {"mistral": "MistralForCausalLM", "mixtral": "MixtralForCausalLM"}
_EXPERT: Final = re.compile(r"(.*\.)block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight")


def _tiny(model_type: str) -> TinyCheckpoint:
    tokenizer = tiny_framed_bpe("ACGT", gap=False)
    config = {"model_type": model_type, **causal_sizes(vocabulary_size=vocabulary_size(tokenizer))}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2} if model_type == "mixtral" else {}
    return TinyCheckpoint(config={**config, **experts, "sliding_window": None}, tokenizer=tokenizer)


_mistral = partial(
    ModelSpec,
    embedder="mistral:MistralEmbedder",
    width=None,
    direction="causal",
    verified="transformers",
)
_ocean = partial(
    _mistral,
    family="GenomeOcean",
    training_data="assembled metagenomes",
    paper="https://doi.org/10.1101/2025.01.30.635558",
    tokenization="byte-pair encoding, 4,096 tokens",
    tiny=partial(_tiny, "mistral"),
)

# Contexts: the windows of training that third parties report.
MODELS: Final = (
    _ocean(key="genomeocean-100m", checkpoint="pGenomeOcean/GenomeOcean-100M", context_tokens=1024),
    _ocean(key="genomeocean-500m", checkpoint="pGenomeOcean/GenomeOcean-500M", context_tokens=1024),
    _ocean(key="genomeocean-4b", checkpoint="pGenomeOcean/GenomeOcean-4B", context_tokens=10_240),
    _mistral(
        key="mistral-dna",
        family="Mistral-DNA",
        source="unknown",
        training_data="unknown",
        trained_on_human_genome=True,
        tokenization="byte-pair encoding",
        tiny=partial(_tiny, "mixtral"),
    ),
)


class MistralEmbedder(BpeStockEmbedder):
    """A Mistral or Mixtral of DNA."""

    direction: Direction = "causal"

    def _load(self) -> None:
        largest = self._read_tokens()
        model_type = read_json(self.folder / "config.json").get("model_type")
        architecture = _ARCHITECTURES.get(str(model_type))
        if architecture is None:
            raise ModelError(
                f"{self.folder}/config.json has model_type {model_type!r}; expected {' or '.join(_ARCHITECTURES)}"
            )
        self._build_stock(architecture, largest=largest)

    def _read_state(self, paths: Sequence[Path], *, nested: str | None) -> dict[str, Tensor]:
        """Read weights; those of experts, one tensor each in published files, are joined as transformers 5 does."""
        return join_experts(super()._read_state(paths, nested=nested))


def join_experts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the three matrices of each expert of a Mixtral into two tensors per layer, as transformers 5 names them.

    Args:
        state: Tensors by name, as published files hold them; others stay as they are.

    Raises:
        ModelError: A layer lacks a matrix of an expert.
    """
    import torch

    joined: dict[str, Tensor] = {}
    experts: dict[str, dict[tuple[str, int], Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if found := _EXPERT.fullmatch(key):
            experts[found[1]][found[3], int(found[2])] = value
        else:
            joined[key.replace(".block_sparse_moe.gate.", ".mlp.gate.")] = value
    for layer, matrices in experts.items():
        n_experts = 1 + max(number for _, number in matrices)
        needed = [(matrix, number) for matrix in ("w1", "w2", "w3") for number in range(n_experts)]
        if missing := [place for place in needed if place not in matrices]:
            raise ModelError(
                f"{layer}block_sparse_moe lacks {missing[0][0]} of expert {missing[0][1]}; expected three matrices for "
                f"each of {n_experts} experts. Download the checkpoint again"
            )
        first, down, up = (torch.stack([matrices[name, i] for i in range(n_experts)]) for name in ("w1", "w2", "w3"))
        joined[f"{layer}mlp.experts.gate_up_proj"] = torch.cat([first, up], dim=1)
        joined[f"{layer}mlp.experts.down_proj"] = down
    return joined
