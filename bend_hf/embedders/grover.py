"""GROVER: BERT over the human genome's own byte-pair words.

    embedder = GROVEREmbedder("path/to/GROVER", protocol="bend-hf-1")
    rows = embedder("ACGTACGTAC", upsample_embeddings=True)      # (10, 768)

BEND cut sequences into the longest words of the vocabulary from left to right; the published tokenizer merges pairs
in the order in which they were learned. ``GROVEREmbedder.segmentation`` says which one is in use.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble
from bend_hf.embedders._bert import BertEmbedder, outer_specials
from bend_hf.embedders._bpe import SPECIAL_TOKENS, BpeTokenizer
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.errors import ModelError
from bend_hf.types import Bools, Ints

logger = logging.getLogger(__name__)

Segmentation: TypeAlias = Literal["longest words", "byte pairs"]

MODELS: Final = (
    ModelSpec(
        key="grover",
        embedder="grover:GROVEREmbedder",
        family="GROVER",
        checkpoint="PoetschLab/GROVER",  # the same as Zenodo record 8373117, with tokenizer.json
        revision=None,  # no full commit id was found
        width=768,
        n_parameters=86_511_201,  # BERT base over 609 tokens, without pooler, head tied
        context_tokens=512,
        tokenization="byte-pair encoding of 600 cycles; bend-2024: its longest words, left to right",
        training_data="human genome, hg19",
        paper="https://doi.org/10.1038/s42256-024-00872-0",
    ),
)


@dataclass(frozen=True, kw_only=True)
class LongestWords:
    """The words of a vocabulary as a trie in arrays, for the longest match at every letter at once.

    Attributes:
        child: State after a state and a letter's digit, 0 where there is none, shape (states, letters + 1).
        word: Id of the word that ends in a state, -1 where none does, shape (states,).
        digit: Digit of each byte value; letters outside the words have the last, which leads nowhere, shape (256,).
        special: Ids of CLS, SEP, PAD, UNK (and MASK) by their text.
        size: Rows of the embedding that these ids need.
    """

    child: Ints
    word: Ints
    digit: Ints
    special: dict[str, int]
    size: int

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], *, source: str | Path) -> LongestWords:
        """Build from texts and ids.

        Raises:
            ModelError: A special token is lacking, or there is no word.
        """
        special = {token: vocabulary[token] for token in SPECIAL_TOKENS if token in vocabulary}
        lacking = [token for token in SPECIAL_TOKENS[:4] if token not in special]
        words = {text: number for text, number in vocabulary.items() if text and text not in special}
        if lacking or not words:
            raise ModelError(
                f"{source} is no vocabulary of GROVER: it lacks {', '.join(lacking) or 'any word'}; expected "
                f"CLS, SEP, PAD, UNK and words of letters"
            )
        alphabet = sorted(set("".join(words)))
        digit = np.full(256, len(alphabet), dtype=np.int64)
        for number, letter in enumerate(alphabet):
            digit[ord(letter)] = number
        child, word = _trie(words, digit, len(alphabet) + 1)
        return cls(
            child=child,
            word=word,
            digit=digit,
            special=special,
            size=max((*special.values(), *words.values())) + 1,
        )

    def stream(self, letters: Nucleotides) -> TokenStream:
        """The longest word from left to right; a letter that starts none is ``[UNK]``."""
        ids, length_bp = self._matches(letters)
        chosen = _hops(letters.starts[:-1], np.arange(len(letters.codes)) + length_bp)
        before = np.concatenate([[0], np.cumsum(chosen)])
        return TokenStream(ids=ids[chosen].astype(np.int32), token_bp=length_bp[chosen], starts=before[letters.starts])

    def _matches(self, letters: Nucleotides) -> tuple[Ints, Ints]:
        """Id and length of the longest word that starts at each letter, each shape (L,)."""
        digits = self.digit[letters.codes]
        ids = np.full(len(digits), self.special["[UNK]"], dtype=np.int64)
        length_bp = np.ones(len(digits), dtype=np.int64)
        room = letters.remaining_bp()
        at = np.arange(len(digits))
        state = np.zeros(len(digits), dtype=np.int64)
        depth = 0
        while len(at):
            state = self.child[state, digits[at + depth]]
            depth += 1
            ends = self.word[state] >= 0
            ids[at[ends]] = self.word[state[ends]]
            length_bp[at[ends]] = depth
            on = (state > 0) & (room[at] > depth)
            at, state = at[on], state[on]
        return ids, length_bp


def _trie(words: Mapping[str, int], digit: Ints, n_digits: int) -> tuple[Ints, Ints]:
    child = [[0] * n_digits]
    word = [-1]
    for text, number in words.items():
        state = 0
        for letter in text:
            code = digit[ord(letter)]
            if not child[state][code]:
                child[state][code] = len(child)
                child.append([0] * n_digits)
                word.append(-1)
            state = child[state][code]
        word[state] = number
    return np.array(child, dtype=np.int64), np.array(word, dtype=np.int64)


def _hops(first: Ints, following: Ints) -> Bools:
    """Which places are reached from some first ones by hopping to the following one again and again.

    Args:
        first: Where to start.
        following: For each of L places a later one, L where there is none, shape (L,).

    Returns:
        Shape (L,). The hops double in each round, so that L places take log2(L) rounds.
    """
    n_places = len(following)
    jump = np.append(following, n_places)
    reached = np.zeros(n_places + 1, dtype=np.bool_)
    reached[first] = True
    n_before = -1
    while n_before < (n_reached := int(np.count_nonzero(reached))):
        n_before = n_reached
        reached[jump[np.flatnonzero(reached)]] = True
        jump = jump[jump]
    return reached[:n_places]


def _vocabulary(folder: Path) -> dict[str, int]:
    """Texts and ids of ``vocab.txt``, else of ``tokenizer.json``."""
    lines = folder / "vocab.txt"
    if lines.is_file():
        return {text: number for number, text in enumerate(lines.read_text(encoding="utf-8").split())}
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} has neither vocab.txt nor tokenizer.json; GROVER needs one of them")
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise ModelError(f"{folder}/tokenizer.json holds no vocabulary; download it again")
    added = tokenizer.get("added_tokens")
    extra = {one["content"]: one["id"] for one in added} if isinstance(added, list) else {}
    return {**vocabulary, **extra}


class GROVEREmbedder(BertEmbedder):
    """GROVER.

    Protocols: ``bend-2024`` cuts sequences into the longest words from left to right; ``bend-hf-1`` uses the
    published byte-pair merges (``tokenizer.json``). A folder with a ``vocab.txt`` alone, as on Zenodo, has no
    merges: it is cut into longest words in both, and a warning says so. In both a letter that is in no word is
    ``[UNK]``, and every piece of a long sequence has its own CLS and SEP.
    """

    segmentation: Segmentation

    def _load(self) -> None:
        merges = self.folder / "tokenizer.json"
        self._pairs: BpeTokenizer | None = None
        if self.protocol == "bend-hf-1" and merges.is_file():
            self._pairs = BpeTokenizer.read(merges)
        elif self.protocol == "bend-hf-1":
            logger.warning(
                "%s has no tokenizer.json: sequences are cut into the longest words of vocab.txt, not by the "
                "published byte-pair merges; add tokenizer.json for those",
                self.folder,
            )
        self.segmentation = "longest words" if self._pairs is None else "byte pairs"
        self._words = LongestWords.of(_vocabulary(self.folder), source=self.folder)
        self.pad_id = self._words.special["[PAD]"]
        self._build_plain_bert(self._words.size)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        special = self._words.special
        stream = self._pairs.stream(sequences) if self._pairs else self._words.stream(Nucleotides.of(sequences))
        window = self._window(self.context_tokens, prefix=(special["[CLS]"],), suffix=(special["[SEP]"],))
        tokenized = assemble(stream, window)
        return outer_specials(tokenized) if self.protocol == "bend-2024" else tokenized
