"""Caduceus: a bidirectional model of single nucleotides; its ``ps`` models treat both strands alike.

    embedder = CaduceusEmbedder("caduceus-ps")
    embeddings = embedder("ACGTNNACGT", upsample_embeddings=True)         # (10, 512)

Each input ends with [SEP]. The network has no maximum length: ``bend-2024`` runs every sequence whole, as the authors'
code does. ``bend-hf-1``, and both protocols with ``overlap_tokens``, cut sequences at the length that the model was
trained on.

PlantCaduceus is the same network with tokens of its own, which its ``tokenizer.json`` lists: a nucleotide other than A,
C, G or T is [UNK], and nothing is added to a sequence. If no file states a length, sequences are never cut. PlantCAD2,
which ``plantcad2`` declares, has the same tokens and Mamba-2 blocks. The weights say which blocks a checkpoint has.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json, read_model_max_length
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._nucleotides import NucleotideVocabulary, tiny_nucleotide_tokenizer
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, single_nucleotides
from bend_hf.embedders._weights import find_weights, stored_names
from bend_hf.embedders.hyenadna import NUCLEOTIDE_TABLE, PAD, SEP
from bend_hf.errors import ModelError
from bend_hf.types import Floats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bend_hf.embedders.networks.caduceus import CaduceusConfig

_MASK: Final = (
    3  # HyenaDNA's vocabulary, in no file of the checkpoint (kuleshov-group/caduceus, tokenization_caduceus.py)
)


def tiny_caduceus(*, both_strands: bool, own_tokens: bool = False) -> TinyCheckpoint:
    """Make a tiny checkpoint, with the tokens of PlantCaduceus if ``own_tokens``."""
    complements = {3: 6, 4: 5, 5: 4, 6: 3} if own_tokens else {7: 10, 8: 9, 9: 8, 10: 7}
    n_tokens = 8 if own_tokens else 16
    config = {
        "model_type": "caduceus",
        "d_model": 16,
        "n_layer": 2,
        "vocab_size": n_tokens,
        "pad_vocab_size_multiple": 8,
        "rms_norm": True,
        "fused_add_norm": True,
        "residual_in_fp32": False,
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": True,
        "norm_epsilon": 1e-5,
        "rcps": both_strands,
        "complement_map": {str(token): complements.get(token, token) for token in range(n_tokens)},
        "ssm_cfg": {"d_state": 4, "d_conv": 4, "expand": 2, "dt_rank": "auto", "conv_bias": True, "bias": False},
    }
    return TinyCheckpoint(
        config=config,
        tokenizer=tiny_nucleotide_tokenizer() if own_tokens else {},
        tokenizer_config={"model_max_length": TINY_CONTEXT_TOKENS},
    )


def _spec(key: str, checkpoint: str, *, revision: str, width: int, n_parameters: int, context_tokens: int) -> ModelSpec:
    return ModelSpec(
        key=key,
        embedder="caduceus:CaduceusEmbedder",
        family="Caduceus",
        checkpoint=f"kuleshov-group/{checkpoint}",
        revision=revision,
        width=width,
        n_parameters=n_parameters,
        context_tokens=context_tokens,
        training_data="human genome (assembly and regions unknown)",  # no source at hand confirms more
        trained_on_human_genome=True,
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2403.03234",
        verified="golden",
        tiny=partial(tiny_caduceus, both_strands=key.startswith("caduceus-ps")),
    )


def _plant(n_layers: int, strand_width: int) -> ModelSpec:
    return ModelSpec(
        key=f"plantcaduceus-l{n_layers}",
        embedder="caduceus:CaduceusEmbedder",
        family="Caduceus",
        checkpoint=f"kuleshov-group/PlantCaduceus_l{n_layers}",
        width=2 * strand_width,
        context_tokens=512,
        training_data="16 genomes of flowering plants",
        license="Apache-2.0",
        paper="https://doi.org/10.1073/pnas.2421738122",
        verified="golden",
        tiny=partial(tiny_caduceus, both_strands=True, own_tokens=True),
    )


# Revisions: commits on the Hub with configuration, tokenizer and weights. Parameters: counted from the configurations;
# at four bytes each they give the sizes of the published files (7,746,792 and 30,937,760 bytes) without their headers.
# License: model pages of the 131k models, and the authors' repository kuleshov-group/caduceus.
MODELS: Final = (
    _spec(
        "caduceus-ph",
        "caduceus-ph_seqlen-131k_d_model-256_n_layer-16",
        revision="7a8d4334107817a9342863ec9410d3e64ed7a5b8",
        width=256,
        n_parameters=7_725_312,
        context_tokens=131_072,
    ),
    _spec(
        "caduceus-ps",
        "caduceus-ps_seqlen-131k_d_model-256_n_layer-16",
        revision="0cc1c877498ced831c93299f3e16f7ed7ad9c846",
        width=512,
        n_parameters=7_725_312,
        context_tokens=131_072,
    ),
    _spec(
        "caduceus-ph-1k",
        "caduceus-ph_seqlen-1k_d_model-256_n_layer-4_lr-8e-3",
        revision="63caf5b116ddea6f43dd03dc1b1850d478ba8e0a",
        width=256,
        n_parameters=1_934_592,
        context_tokens=1024,
    ),
    _spec(
        "caduceus-ps-1k",
        "caduceus-ps_seqlen-1k_d_model-256_n_layer-4_lr-8e-3",
        revision="6a5edc5d5aadc6f9e10d0825eb9b2cf3a36bbe18",
        width=512,
        n_parameters=1_934_592,
        context_tokens=1024,
    ),
    # The depth is in the name. Width of a strand, context and license: repository kuleshov-group/PlantCaduceus.
    _plant(20, 384),
    _plant(24, 512),
    _plant(28, 768),
    _plant(32, 1024),
)


class CaduceusEmbedder(NetworkEmbedder):
    """Caduceus, ``ph`` or ``ps`` according to its configuration."""

    _table: NDArray[np.int32]
    _suffix: tuple[int, ...]

    def _load(self) -> None:
        from bend_hf.embedders.networks import caduceus

        version = None if self.random_init else caduceus.mamba_version_of(stored_names(find_weights(self.folder)))
        config = caduceus.config_from_json(read_json(self.folder / "config.json"), mamba_version=version)
        head = () if config.tie_word_embeddings else ("lm_head.*",)
        self.model = self._build(
            lambda: caduceus.CaduceusForMaskedLM(config),
            allow_missing=("*.complement_map", *head),  # buffers, which the configuration repeats
            rename=caduceus.rename_key,
        )
        self._read_tokens(config)
        self._both_strands: bool = config.rcps
        self._trained_tokens = self._read_trained_tokens()

    def _read_tokens(self, config: CaduceusConfig) -> None:
        """Set the tokens: those of ``tokenizer.json``, which PlantCaduceus has, or the vocabulary of Caduceus."""
        path = self.folder / "tokenizer.json"
        if path.is_file():
            vocabulary = NucleotideVocabulary.read(path)
            self.pad_id, self._table, self._suffix = vocabulary.padding, vocabulary.table, ()
        else:
            self.pad_id, self.mask_id = PAD, _MASK
            self._table, self._suffix = NUCLEOTIDE_TABLE, (SEP,)
        largest = int(self._table.max())
        if largest < config.n_embeddings:
            return
        if not path.is_file():
            raise ModelError(
                f"{self.folder} has no tokenizer.json, and the network has {config.n_embeddings} tokens, which is too "
                f"few for the vocabulary of Caduceus. Download the tokenizer.json of the checkpoint"
            )
        raise ModelError(
            f"{path} gives the token id {largest}, but the network has {config.n_embeddings} tokens; the files do "
            f"not belong together"
        )

    def _read_trained_tokens(self) -> int | None:
        """Read the length of the inputs that the model was trained on; None if no file of PlantCaduceus states it."""
        length = read_model_max_length(self.folder)
        if length is None and self.spec is not None:
            length = self.spec.context_tokens
        if length is None and self._suffix:
            raise ModelError(
                f"{self.folder}/tokenizer_config.json has no model_max_length; expected the number of tokens that the "
                f"model was trained on. Download the tokenizer_config.json of the checkpoint"
            )
        return length

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        whole = self.protocol == "bend-2024" and not self.overlap_tokens
        return assemble(stream, self._window(None if whole else self._trained_tokens, suffix=self._suffix))

    def _flip(self, x_LD: Floats) -> Floats:
        """Put the embeddings of a reverse complement in forward order; in ``ps`` models the strands swap halves."""
        return x_LD[::-1, ::-1] if self._both_strands else x_LD[::-1]
