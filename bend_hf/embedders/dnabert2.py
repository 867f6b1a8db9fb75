"""DNABERT-2: byte-pair tokens and ALiBi, without a maximum length.

    embedder = DNABert2Embedder("zhihan1996/DNABERT-2-117M")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)      # (9, 768)

As in BEND, both protocols cut sequences into sections of 10,000 nucleotides and tokenize each with its own ``[CLS]``
and ``[SEP]``. If special tokens are kept, ``bend-2024`` returns the first and the last one of a sequence, as BEND does,
and ``bend-hf-1`` those of each section. With ``overlap_tokens`` a sequence is tokenized whole and cut into chunks of
512 tokens. A nucleotide other than A, C, G or T is one ``[UNK]`` token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._alignment import Tokenized, assemble, merge_sections
from bend_hf.embedders._bert import TINY_BERT, outer_specials
from bend_hf.embedders._bpe import BpeTokenizer, tiny_bpe, vocabulary_size
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, cut_nucleotides
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

SECTION_BP: Final = 10_000  # BEND bend/utils/embedders.py, DNABert2Embedder
SLIDING_TOKENS: Final = 512  # config.json: max_position_embeddings and alibi_starting_size


def _tiny() -> TinyCheckpoint:
    tokenizer = tiny_bpe("ACGT", gap=False)
    sizes = {"vocab_size": vocabulary_size(tokenizer), "alibi_starting_size": 8, "position_embedding_type": "absolute"}
    return TinyCheckpoint(config={**TINY_BERT, **sizes}, tokenizer=tokenizer)


MODELS: Final = (
    ModelSpec(
        key="dnabert2",
        embedder="dnabert2:DNABert2Embedder",
        family="DNABERT-2",
        checkpoint="zhihan1996/DNABERT-2-117M",
        revision="7bce263b15377fc15361f52cfab88f8b586abda0",  # main branch of the Hub repository
        width=768,
        n_parameters=117_074_176,  # the network as it is loaded, with the language-model head
        context_tokens=None,
        tokenization="byte pairs, 4,096 tokens",
        training_data="human genome and genomes of 135 species (32.5 billion nucleotides)",
        trained_on_human_genome=True,
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2306.15006",
        verified="golden",
        tiny=_tiny,
    ),
    ModelSpec(
        key="dnabert-s",
        embedder="dnabert2:DNABert2Embedder",
        family="DNABERT-2",
        checkpoint="zhihan1996/DNABERT-S",
        width=None,
        tokenization="byte pairs",
        training_data="that of DNABERT-2 (many species), then genomes of microbes",
        trained_on_human_genome=True,
        paper="https://arxiv.org/abs/2402.08777",
        verified="golden",
        tiny=_tiny,
    ),
)

# Tokens that never occur in a sequence. [UNK] may occur, so it competes in the loss, as in BEND.
_NO_TARGET: Final = ("[CLS]", "[SEP]", "[PAD]", "[MASK]")


class DNABert2Embedder(NetworkEmbedder):
    """DNABERT-2 and its fine-tuned copies; the module says how long sequences are cut."""

    def _load(self) -> None:
        from bend_hf.embedders.networks import dnabert2

        self._tokenizer = BpeTokenizer.read(self.folder / "tokenizer.json")
        self.pad_id = self._tokenizer.special["[PAD]"]
        path = self.folder / "config.json"
        config = dnabert2.DNABert2Config.published(read_json(path), pad_token_id=self.pad_id, name=str(path))
        if len(self._tokenizer.bp_of_id) > config.vocab_size:
            raise ModelError(
                f"{self.folder} has {len(self._tokenizer.bp_of_id)} tokens in tokenizer.json, but vocab_size "
                f"{config.vocab_size} in config.json; the files do not belong together"
            )
        self.model = self._build(
            lambda: dnabert2.DNABert2ForMaskedLM(config),
            allow_missing=("cls.*",),
            allow_unexpected=dnabert2.UNUSED_KEYS,
            rename=_with_prefix,
        )

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        special = self._tokenizer.special
        prefix, suffix = (special["[CLS]"],), (special["[SEP]"],)
        if self.overlap_tokens:
            window = self._window(SLIDING_TOKENS, prefix=prefix, suffix=suffix)
            return assemble(self._tokenizer.stream(sequences), window)
        section_starts = cut_nucleotides(Nucleotides.of(sequences), SECTION_BP).section_starts
        sections = [one[start : start + SECTION_BP] for one in sequences for start in range(0, len(one), SECTION_BP)]
        window = self._window(None, prefix=prefix, suffix=suffix)
        tokenized = merge_sections(assemble(self._tokenizer.stream(sections), window), section_starts)
        return tokenized if self.protocol == "bend-hf-1" else outer_specials(tokenized)

    def _loss_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Compute the loss of each token, shape (B, T, 1); that of a special token is infinite and is not used."""
        from torch.nn.functional import cross_entropy

        scores_BTV = self._logits(ids_BT, mask_BT).float()
        special = self._tokenizer.special
        scores_BTV[..., [special[token] for token in _NO_TARGET if token in special]] = -np.inf
        return cross_entropy(scores_BTV.flatten(0, 1), ids_BT.flatten(), reduction="none").view(*ids_BT.shape, 1)


def _with_prefix(key: str) -> str:
    """Add the prefix to a key of a file that was saved without the head."""
    return f"bert.{key}" if key.startswith(("embeddings.", "encoder.", "pooler.")) else key
