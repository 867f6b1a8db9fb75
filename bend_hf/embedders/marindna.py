"""MarinDNA: a causal Qwen 3 over single nucleotides.

    embedder = load_embedder("marindna", checkpoint="path/or/Hub-id")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 1152)

[BOS] stands in front of each chunk, and nothing behind it. A nucleotide other than A, C, G and T is [UNK]. The models
read [BOS] and 255 nucleotides; longer sequences are cut into chunks of that length, and ``overlap_tokens`` gives each
nucleotide more context. Both protocols give the same embeddings. The network is the Qwen 3 of transformers.
"""

from __future__ import annotations

from typing import Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_vocabulary
from bend_hf.embedders._nucleotides import NucleotideVocabulary
from bend_hf.embedders._spec import Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._stock import StockEmbedder, causal_sizes
from bend_hf.embedders._tokens import Nucleotides, single_nucleotides
from bend_hf.errors import ModelError

BOS: Final = "[BOS]"


def _tiny() -> TinyCheckpoint:
    tokens = ("[PAD]", "[UNK]", BOS, "a", "c", "g", "t")  # of the published tokenizer.json, in this order
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for number, token in enumerate(tokens[:3])
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": ".{1}"}, "behavior": "Isolated", "invert": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [2], "tokens": [BOS]}},
        },
        "model": {
            "type": "WordLevel",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "unk_token": "[UNK]",
        },
    }
    rotary = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    config = {"model_type": "qwen3", **causal_sizes(vocabulary_size=len(tokens)), "rope_scaling": rotary}
    return TinyCheckpoint(config={**config, "num_key_value_heads": 2}, tokenizer=tokenizer)


# Width and context of one published model; the address on the Hub, the licence and the training data are not confirmed.
MODELS: Final = (
    ModelSpec(
        key="marindna",
        embedder="marindna:MarinDNAEmbedder",
        family="MarinDNA",
        source="unknown",
        width=1152,
        context_tokens=256,
        direction="causal",
        training_data="unknown",
        trained_on_human_genome=True,
        verified="transformers",
        tiny=_tiny,
    ),
)


class MarinDNAEmbedder(StockEmbedder):
    """MarinDNA and its fine-tuned copies."""

    architecture = "Qwen3ForCausalLM"
    direction: Direction = "causal"

    def _read_tokens(self) -> int:
        path = self.folder / "tokenizer.json"
        vocabulary = NucleotideVocabulary.read(path)
        tokens = read_vocabulary(self.folder)
        if BOS not in tokens:
            raise ModelError(f"{path} lacks {BOS}, with which MarinDNA begins a sequence; download it again")
        self._bos = tokens.index(BOS)
        self._table, self.pad_id = vocabulary.table, vocabulary.padding
        self._known = sorted(set(vocabulary.ids.values()))
        return max(int(self._table.max()), self._bos)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, self._window(self.context_tokens, prefix=(self._bos,)))

    def _loss_tokens(self) -> list[int]:
        """Return the ids of the nucleotides that the model knows."""
        return self._known
