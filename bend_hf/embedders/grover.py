"""GROVER: BERT over byte-pair tokens of the human genome.

    embedder = GROVEREmbedder("path/to/GROVER", protocol="bend-hf-1")
    embeddings = embedder("ACGTACGTAC", upsample_embeddings=True)     # (10, 768)

BEND cuts a sequence into the longest tokens of the vocabulary from left to right. The published tokenizer merges pairs
in the order in which they were learned. ``GROVEREmbedder.segmentation`` says which of the two is in use.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble
from bend_hf.embedders._bert import TINY_BERT, BertEmbedder, outer_specials
from bend_hf.embedders._bpe import SPECIAL_TOKENS, BpeTokenizer, tiny_bpe, vocabulary_size
from bend_hf.embedders._checkpoint_files import has_merges, read_vocabulary
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.errors import ModelError
from bend_hf.types import Bools, Ints

logger = logging.getLogger(__name__)

Segmentation: TypeAlias = Literal["longest tokens", "byte pairs"]


def _tiny() -> TinyCheckpoint:
    tokenizer = tiny_bpe("ACGT", gap=False)
    config = {**TINY_BERT, "model_type": "bert", "vocab_size": vocabulary_size(tokenizer), "pad_token_id": 0}
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


MODELS: Final = (
    ModelSpec(
        key="grover",
        embedder="grover:GROVEREmbedder",
        family="GROVER",
        checkpoint="PoetschLab/GROVER",  # Zenodo record 8373117 with tokenizer.json
        revision=None,  # no commit was found
        width=768,
        n_parameters=86_511_201,  # BERT base over 609 tokens, without pooler, head tied
        context_tokens=512,
        tokenization="byte-pair encoding of 600 cycles; bend-2024: its longest tokens, left to right",
        training_data="human genome, hg19",
        trained_on_human_genome=True,
        paper="https://doi.org/10.1038/s42256-024-00872-0",
        verified="golden",
        tiny=_tiny,
    ),
)


@dataclass(frozen=True, kw_only=True)
class LongestTokens:
    """The tokens of a vocabulary as a trie in arrays, to find the longest match at every nucleotide at once.

    Attributes:
        child: Next state for a state and the digit of a nucleotide; 0 without one. Shape (states, nucleotides + 1).
        token: Id of the token that ends in a state; -1: no token ends there. Shape (states,).
        digit: Digit of each byte value, shape (256,). Nucleotides that no token contains have the last digit, which
            leads to no state.
        special: Ids of CLS, SEP, PAD, UNK (and MASK) by their text.
        size: Number of input embeddings that these ids need.
    """

    child: Ints
    token: Ints
    digit: Ints
    special: dict[str, int]
    size: int

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], *, source: str | Path) -> LongestTokens:
        """Build the trie from texts and ids.

        Raises:
            ModelError: A special token is missing, or there is no other token.
        """
        special = {token: vocabulary[token] for token in SPECIAL_TOKENS if token in vocabulary}
        missing = [token for token in SPECIAL_TOKENS[:4] if token not in special]
        tokens = {text: number for text, number in vocabulary.items() if text and text not in special}
        if missing or not tokens:
            raise ModelError(
                f"{source} is not a vocabulary of GROVER: it lacks {', '.join(missing) or 'tokens of nucleotides'}; "
                f"expected CLS, SEP, PAD, UNK and tokens of nucleotides"
            )
        alphabet = sorted(set("".join(tokens)))
        digit = np.full(256, len(alphabet), dtype=np.int64)
        for number, nucleotide in enumerate(alphabet):
            digit[ord(nucleotide)] = number
        child, token = _trie(tokens, digit, len(alphabet) + 1)
        return cls(
            child=child,
            token=token,
            digit=digit,
            special=special,
            size=max((*special.values(), *tokens.values())) + 1,
        )

    def stream(self, nucleotides: Nucleotides) -> TokenStream:
        """Tokenize into the longest tokens from left to right; a nucleotide that starts no token is ``[UNK]``."""
        ids, length_bp = self._matches(nucleotides)
        chosen = _hops(nucleotides.starts[:-1], np.arange(len(nucleotides.codes)) + length_bp)
        before = np.concatenate([[0], np.cumsum(chosen)])
        return TokenStream(
            ids=ids[chosen].astype(np.int32), token_bp=length_bp[chosen], starts=before[nucleotides.starts]
        )

    def _matches(self, nucleotides: Nucleotides) -> tuple[Ints, Ints]:
        """Return id and length of the longest token that starts at each nucleotide, each of shape (L,)."""
        digits = self.digit[nucleotides.codes]
        ids = np.full(len(digits), self.special["[UNK]"], dtype=np.int64)
        length_bp = np.ones(len(digits), dtype=np.int64)
        room = nucleotides.remaining_bp()
        at = np.arange(len(digits))
        state = np.zeros(len(digits), dtype=np.int64)
        depth = 0
        while len(at):
            state = self.child[state, digits[at + depth]]
            depth += 1
            ends = self.token[state] >= 0
            ids[at[ends]] = self.token[state[ends]]
            length_bp[at[ends]] = depth
            on = (state > 0) & (room[at] > depth)
            at, state = at[on], state[on]
        return ids, length_bp


def _trie(tokens: Mapping[str, int], digit: Ints, n_digits: int) -> tuple[Ints, Ints]:
    child = [[0] * n_digits]
    token = [-1]
    for text, number in tokens.items():
        state = 0
        for nucleotide in text:
            code = digit[ord(nucleotide)]
            if not child[state][code]:
                child[state][code] = len(child)
                child.append([0] * n_digits)
                token.append(-1)
            state = child[state][code]
        token[state] = number
    return np.array(child, dtype=np.int64), np.array(token, dtype=np.int64)


def _hops(first: Ints, following: Ints) -> Bools:
    """Mark the positions that are reached from the first ones by following links.

    Args:
        first: Positions to start from.
        following: For each of L positions the next one, which is larger; L after the last. Shape (L,).

    Returns:
        Shape (L,). The length of the hops doubles in each round, so that log2(L) rounds suffice.
    """
    n_positions = len(following)
    jump = np.append(following, n_positions)
    reached = np.zeros(n_positions + 1, dtype=np.bool_)
    reached[first] = True
    n_before = -1
    while n_before < (n_reached := int(np.count_nonzero(reached))):
        n_before = n_reached
        reached[jump[np.flatnonzero(reached)]] = True
        jump = jump[jump]
    return reached[:n_positions]


class GROVEREmbedder(BertEmbedder):
    """GROVER.

    ``bend-2024`` cuts sequences into the longest tokens from left to right; ``bend-hf-1`` uses the published byte-pair
    merges (``tokenizer.json``). A folder with only ``vocab.txt``, as on Zenodo, has no merges, and neither has the
    ``tokenizer.json`` that transformers 5 makes from it: both then cut into the longest tokens, and a warning says so.
    In both, a nucleotide that no token contains is ``[UNK]``, and every chunk has its own CLS and SEP.
    """

    segmentation: Segmentation

    def _load(self) -> None:
        self._pairs: BpeTokenizer | None = None
        if self.protocol == "bend-hf-1" and has_merges(self.folder):
            self._pairs = BpeTokenizer.read(self.folder / "tokenizer.json")
        elif self.protocol == "bend-hf-1":
            logger.warning(
                "%s has no byte-pair merges: sequences are cut into the longest tokens of the vocabulary instead; add "
                "the published tokenizer.json to use its merges",
                self.folder,
            )
        self.segmentation = "longest tokens" if self._pairs is None else "byte pairs"
        self._longest = LongestTokens.of(
            {token: number for number, token in enumerate(read_vocabulary(self.folder)) if token}, source=self.folder
        )
        self.pad_id = self._longest.special["[PAD]"]
        self._build_plain_bert(self._longest.size)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        special = self._longest.special
        stream = self._pairs.stream(sequences) if self._pairs else self._longest.stream(Nucleotides.of(sequences))
        window = self._window(self.context_tokens, prefix=(special["[CLS]"],), suffix=(special["[SEP]"],))
        tokenized = assemble(stream, window)
        return outer_specials(tokenized) if self.protocol == "bend-2024" else tokenized
