"""GENERanno: a bidirectional model of single nucleotides with the blocks of a Llama.

    embedder = load_embedder("generanno-eukaryote-0.5b")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 1280)

``<s>`` stands in front of each chunk and behind it, as in the authors' fine-tuning. A nucleotide other than A, C, G and
T is N. Both protocols give the same embeddings. The published tokenizer was not at hand: the ids are those of the
tokens in the checkpoint's vocabulary, one token per nucleotide.
"""

from __future__ import annotations

from typing import Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json, read_vocabulary
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides
from bend_hf.errors import ModelError

BOS, PAD, MASK = "<s>", "<pad>", "<mask>"
# The tokens in the order of their ids: what third parties state of the published vocabulary.
_CONTROLS: Final = (
    *("<oov>", BOS, "</s>", PAD, MASK, "<bog>", "<eog>", "<bok>", "<eok>", "<+>", "<->"),
    *("<mam>", "<vrt>", "<inv>", "<pln>", "<fng>", "<prt>", "<arc>", "<bct>", "<mit>", "<plt>", "<plm>", "<vir>"),
    *("<cds>", "<pseudo>", "<tRNA>", "<rRNA>", "<ncRNA>", "<sp0>", "<sp1>", "<sp2>", "<sp3>"),
)
_NUCLEOTIDES: Final = ("A", "C", "G", "<K>", "<M>", "N", "<R>", "<S>", "T", "<W>", "<Y>")


def _tiny() -> TinyCheckpoint:
    config = {
        "model_type": "generanno",
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "initializer_range": 0.2,
        "max_position_embeddings": TINY_CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "pad_token_id": 3,
        "mask_token_id": 4,
        "tie_word_embeddings": False,
    }
    return TinyCheckpoint(config=config, vocabulary=(*_CONTROLS, *_NUCLEOTIDES))


# Sizes: those that give the published number of parameters. Address and license: the authors' repository.
# Training data: the model's page on the Hub.
MODELS: Final = (
    ModelSpec(
        key="generanno-eukaryote-0.5b",
        embedder="generanno:GENERannoEmbedder",
        family="GENERanno",
        checkpoint="GenerTeam/GENERanno-eukaryote-0.5b-base",
        width=1280,
        n_parameters=493_395_200,
        context_tokens=8192,
        training_data="DNA of many species (eukaryotes), 386 billion nucleotides",
        trained_on_human_genome=True,
        license="MIT",
        paper="https://doi.org/10.1101/2025.06.04.656517",
        verified="golden",
        tiny=_tiny,
    ),
)


class GENERannoEmbedder(NetworkEmbedder):
    """GENERanno and its fine-tuned copies."""

    def _load(self) -> None:
        from bend_hf.embedders.networks import generanno

        id_of = {token: number for number, token in enumerate(read_vocabulary(self.folder))}
        missing = [token for token in (BOS, PAD, MASK, *"ACGTN") if token not in id_of]
        if missing:
            raise ModelError(
                f"the vocabulary of {self.folder} lacks {', '.join(missing)}; expected that of a GENERanno, with one "
                f"token per nucleotide"
            )
        self._table = nucleotide_table({base: id_of[base] for base in "ACGTN"}, id_of["N"])
        self._bos, self.pad_id, self.mask_id = id_of[BOS], id_of[PAD], id_of[MASK]
        self._known = sorted(id_of[base] for base in "ACGT")
        config = generanno.GENERannoConfig.published(read_json(self.folder / "config.json"))
        largest = max(int(self._table.max()), self._bos, self.pad_id, self.mask_id)
        if largest >= config.vocab_size:
            raise ModelError(
                f"the vocabulary of {self.folder} has the token id {largest}, but vocab_size is {config.vocab_size} in "
                f"config.json; the files do not belong together"
            )
        self._context_tokens = config.max_position_embeddings
        self.model = self._build(
            lambda: generanno.GENERannoForMaskedLM(config),
            allow_missing=("lm_head.*",),
            allow_unexpected=("*.rotary_emb.inv_freq",),  # a buffer that transformers 4 stored
            rename=_whole_key,
        )

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, self._window(self._context_tokens, prefix=(self._bos,), suffix=(self._bos,)))

    def _loss_tokens(self) -> list[int]:
        """Return the ids of A, C, G and T; N has no loss."""
        return self._known


def _whole_key(key: str) -> str:
    """Add the prefix of the encoder, which files of a bare encoder lack."""
    return f"model.{key}" if key.startswith(("embed_tokens.", "layers.", "norm.")) else key
