"""MutBERT: a masked model of single nucleotides with rotary positions.

    embedder = load_embedder("mutbert")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 768)

[CLS] stands in front of each chunk and [SEP] behind it; a nucleotide other than A, C, G and T is [UNK]. The tokens are
those of ``tokenizer.json``. The published ``vocab.txt`` numbers C, G and T in another way and is not read. Sequences
longer than the model was trained on are cut into chunks, unless ``rope_scaling`` of ``config.json`` scales positions:
then a chunk may be longer by its factor. Both protocols give the same embeddings.

The original code scales a whole batch by its padded length, and keeps that for later calls. Here each sequence is
scaled by its own length.
"""

from __future__ import annotations

from typing import Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._bert import TINY_BERT, UNUSED_KEYS, BertEmbedder, tied_key
from bend_hf.embedders._bpe import BpeTokenizer
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideVocabulary
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, single_nucleotides
from bend_hf.errors import ModelError

_TOKENS: Final = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T")  # of the published tokenizer.json


def _tiny() -> TinyCheckpoint:
    ids = {token: number for number, token in enumerate(_TOKENS)}
    front, behind = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": ids[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for token in _TOKENS[:5]
        ],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [front, {"Sequence": {"id": "A", "type_id": 0}}, behind],
            "pair": [],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "model": {"type": "BPE", "unk_token": "[UNK]", "fuse_unk": False, "vocab": ids, "merges": []},
    }
    rotary = {"rope_theta": 10000.0, "rope_scaling": None, "pooler_type": "mean"}
    config = {**TINY_BERT, **rotary, "model_type": "bert", "vocab_size": 9, "pad_token_id": 3, "hidden_act": "gelu"}
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


# Sizes: the authors' config.json, whose network has as many tensors as the published file. Parameters: counted from it,
# with the head. Address: the authors' repository. The license of the weights is not confirmed.
MODELS: Final = (
    ModelSpec(
        key="mutbert",
        embedder="mutbert:MutBertEmbedder",
        family="MutBERT",
        checkpoint="JadenLong/MutBERT",
        revision="b68d8d6c9ccd8167639b25fb979cbd39a5c5c60c",
        width=768,
        n_parameters=85_656_585,
        context_tokens=512,
        training_data="human genome and its variants (regions unknown)",
        trained_on_human_genome=True,
        paper="https://doi.org/10.1101/2025.01.23.634452",
        verified="golden",
        tiny=_tiny,
    ),
)


class MutBertEmbedder(BertEmbedder):
    """MutBERT and its fine-tuned copies."""

    def _load(self) -> None:
        from bend_hf.embedders.networks import mutbert

        path = self.folder / "tokenizer.json"
        tokenizer = BpeTokenizer.read(path)
        vocabulary = NucleotideVocabulary.read(path)
        self._table, self.pad_id = vocabulary.table, vocabulary.padding
        self._known = sorted(vocabulary.ids[base] for base in "ACGT")
        self._prefix, self._suffix = tokenizer.frame()
        self.mask_id = tokenizer.special.get("[MASK]")
        config = mutbert.MutBertConfig.published(read_json(self.folder / "config.json"))
        largest = len(tokenizer.bp_of_id) - 1
        if largest >= config.vocab_size:
            raise ModelError(
                f"{path} has the token id {largest}, but vocab_size is {config.vocab_size} in config.json; the files "
                f"do not belong together"
            )
        self._context_tokens = config.context_tokens
        self.model = self._build(
            lambda: mutbert.MutBertForMaskedLM(config),
            allow_missing=self.head_keys,
            allow_unexpected=(*UNUSED_KEYS, "*.rotary_emb*"),
            rename=tied_key,
        )

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, self._window(self._context_tokens, prefix=self._prefix, suffix=self._suffix))

    def _loss_tokens(self) -> list[int]:
        """Return the ids of A, C, G and T; an unknown nucleotide has no loss."""
        return self._known
