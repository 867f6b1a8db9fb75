"""Read DNA with any tokenizer of transformers, and refuse tokenizers that do not read DNA.

``DnaTokenizer`` tries its tokenizer on fixed sequences when it is made. It finds the special tokens around a sequence,
a blank that is put in front of it, whether A, C, G, T and N have tokens, and whether a long window becomes one unknown
token.

A tokenizer without an unknown token drops the nucleotides that it does not know. They belong to the token before them.
A sequence of nothing else is one stand-in token: the mask, or padding if there is no mask.

A token of letters stands for these, and an unknown one for a nucleotide at least. So if their lengths add up to that of
a sequence, they are those of its tokens. Offsets, which take several times as long, are asked for only where they do
not add up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from bend_hf.embedders._alignment import TokenStream, sums
from bend_hf.embedders._encoding import encode_ids, merge_always
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, stream_from_offsets
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import AlignmentError, ModelError
from bend_hf.types import Ints

if TYPE_CHECKING:
    import tokenizers

logger = logging.getLogger(__name__)

SAMPLE: Final = "ACGTTGCAACGGTCATGACC"
LONG_SAMPLE: Final = SAMPLE * 3  # whole tokens of 3, 4, 5 and 6 nucleotides
_ALPHABET: Final = "ACGT"
# Marks of a blank or of a part of a word: SentencePiece, byte-level BPE, WordPiece.
_BLANKS: Final = "\u2581\u0120 "
_CONTINUES: Final = "##"
_LONG_BP: Final = 2000  # longer than the words that WordPiece reads (100 letters), and than the windows of most tasks
_LONGEST_KMER_BP: Final = 8  # of the tokenizers that cut DNA into k-mers
_RUN_BP: Final = 24  # a multiple of all usual k-mers, so that no nucleotide is left over
_NO_LIMIT_TOKENS: Final = 10**9  # transformers writes 10 ** 30 for a tokenizer without a limit


class Tokenizer(Protocol):
    """The methods of a transformers tokenizer that are used here."""

    is_fast: bool
    model_max_length: int
    mask_token_id: int | None
    pad_token_id: int | None
    unk_token: str | None
    unk_token_id: int | None

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """That of a fast tokenizer."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool = False
    ) -> dict[str, Any]: ...

    def tokenize(self, text: str) -> list[str]: ...

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...

    def get_vocab(self) -> dict[str, int]: ...


class DnaTokenizer:
    """A tokenizer of transformers that reads DNA.

    Args:
        tokenizer: The tokenizer.
        name: Name of the model, for messages.
        cannot: Makes the message of an error from its reason.

    Attributes:
        prefix: Ids of the special tokens in front.
        suffix: Ids of the special tokens at the end.
        limit_tokens: Maximum number of tokens that the tokenizer states; None: it states none.
        stand_in: Id of the token for a sequence without any known nucleotide; None if it is missing or not needed.
        drops_n: Whether N has no token.

    Raises:
        ModelError: The tokenizer does not read DNA.
    """

    def __init__(self, tokenizer: Tokenizer, *, name: str, cannot: Callable[[str], str]) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._cannot = cannot
        if tokenizer.is_fast:
            merge_always(tokenizer.backend_tokenizer, name)
        vocabulary = tokenizer.get_vocab()
        blanks = [number for text, number in vocabulary.items() if text and not text.strip(_BLANKS)]
        self._blanks: Ints = np.array(sorted(blanks), dtype=np.int64)
        # A k-mer with an N, or what is left at the end, may be unknown as a whole.
        kmers_bp = (len(text) for text in vocabulary if set(text.upper()) <= set(_ALPHABET))
        self._kmer_bp = max((n_bp for n_bp in kmers_bp if n_bp <= _LONGEST_KMER_BP), default=1)
        self.prefix, self.suffix = self._specials()
        self._check_nucleotides()
        limit = int(tokenizer.model_max_length)
        self.limit_tokens = limit if limit < _NO_LIMIT_TOKENS else None
        self.stand_in: int | None = None
        self.drops_n = set(self._content("N" * _RUN_BP)) <= set(blanks)
        if self.drops_n:
            others = (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id, *self.prefix)
            self.stand_in = next((token for token in others if token is not None), None)
            logger.warning(
                "%s has no token for N: an N belongs to the token before it, and a window of N alone is %s",
                name,
                "refused" if self.stand_in is None else f"one token {self._text(self.stand_in)!r}",
            )
        self._bp_of_id = self._lengths() if tokenizer.is_fast else None
        self.stream(["".join(np.random.default_rng(0).choice(list(_ALPHABET), _LONG_BP))])

    @property
    def has_blank(self) -> bool:
        """Whether the tokenizer puts a blank in front of a sequence, as a token of its own."""
        (bare,) = self._tokenizer([SAMPLE], add_special_tokens=False)["input_ids"]
        return bool(np.isin(bare[:1], self._blanks).any())

    def stream(self, sequences: list[str]) -> TokenStream:
        """Tokenize upper-case sequences, without special tokens.

        Raises:
            AlignmentError: The tokens cannot be aligned with a sequence.
            ModelError: A, C, G or T became part of one unknown token, or a sequence has no token.
        """
        if self._bp_of_id is not None:
            stream = self._by_lengths(sequences, self._bp_of_id)
        else:
            stream = self._by_offsets(sequences) if self._tokenizer.is_fast else self._by_texts(sequences)
        self._check_unknown(sequences, stream)
        return stream

    def _lengths(self) -> Ints | None:
        """Return the nucleotides of each token id, -1 where its text does not say, shape (V,).

        Returns:
            None if that gives other tokens than offsets do.
        """
        vocabulary = self._tokenizer.get_vocab()
        bp_of_id = np.full(max(vocabulary.values()) + 1, -1, dtype=np.int64)
        for text, number in vocabulary.items():
            bare = _bare(text)
            if bare.isascii() and bare.isalpha():
                bp_of_id[number] = len(bare)
        if self._tokenizer.unk_token_id is not None:
            bp_of_id[self._tokenizer.unk_token_id] = 1
        bp_of_id[self._blanks] = 0
        letters = np.random.default_rng(0).choice(list(f"{_ALPHABET * 8}NRY"), _LONG_BP)
        tried = ["".join(letters), "".join(letters[:100]), SAMPLE, "A"]
        try:
            plain, found = self._by_offsets(tried), self._by_lengths(tried, bp_of_id)
        except (AlignmentError, ModelError):  # raised again for a sequence that needs it
            return None
        pairs = ((plain.ids, found.ids), (plain.token_bp, found.token_bp), (plain.starts, found.starts))
        return bp_of_id if all(np.array_equal(one, other) for one, other in pairs) else None

    def _by_lengths(self, sequences: list[str], bp_of_id: Ints) -> TokenStream:
        """Take the lengths of tokens from their texts, and offsets where these do not add up to a sequence."""
        ids, starts = encode_ids(self._tokenizer.backend_tokenizer, sequences)
        token_bp = bp_of_id[ids]
        differs = sums(token_bp, starts) != [len(sequence) for sequence in sequences]
        differs |= sums((token_bp < 0).astype(np.int64), starts) > 0
        if not differs.any():
            return TokenStream(ids=ids, token_bp=token_bp, starts=starts)
        others = self._by_offsets([sequences[index] for index in np.flatnonzero(differs)])
        counts = np.diff(starts)
        kept = np.repeat(~differs, counts)
        counts[differs] = np.diff(others.starts)
        other = np.repeat(differs, counts)
        joined = TokenStream(
            ids=np.empty(len(other), dtype=ids.dtype),
            token_bp=np.empty(len(other), dtype=np.int64),
            starts=starts_of(counts),
        )
        joined.ids[other], joined.ids[~other] = others.ids, ids[kept]
        joined.token_bp[other], joined.token_bp[~other] = others.token_bp, token_bp[kept]
        return joined

    def _by_offsets(self, sequences: list[str]) -> TokenStream:
        encoded = self._tokenizer(sequences, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[list[int]] = encoded["input_ids"]
        offsets: list[list[tuple[int, int]]] = encoded["offset_mapping"]
        blanks = set(self._blanks.tolist())
        for index, tokens in enumerate(ids):
            if len(tokens) < 2 and all(token in blanks for token in tokens):
                ids[index] = [*tokens, self._instead(sequences[index])]
                offsets[index] = [*offsets[index], (0, len(sequences[index]))]
        return stream_from_offsets(
            ids,
            offsets,
            lengths_bp=np.array([len(sequence) for sequence in sequences], dtype=np.int64),
            name=self._name,
            silent=self._blanks,
        )

    def _by_texts(self, sequences: list[str]) -> TokenStream:
        """Align tokens whose concatenated texts are the sequence; an unknown token is one nucleotide."""
        texts = [self._tokenizer.tokenize(sequence) for sequence in sequences]
        unknown = self._tokenizer.unk_token
        bp: list[int] = []
        for index, (sequence, tokens) in enumerate(zip(sequences, texts, strict=True)):
            bare = [token if token == unknown else _bare(token) for token in tokens]
            lengths = [1 if token == unknown else len(token) for token in bare]
            spelled = "".join(bare).upper()
            if spelled != sequence and sum(lengths) != len(sequence):
                raise AlignmentError(
                    f"{self._name} has a tokenizer without offsets, and its tokens for sequence {index} spell "
                    f"{spelled[:40]!r} instead of {sequence[:40]!r}. Write a family with _tokenize(), or a Python "
                    f"file with embed() and pass its path as the model"
                )
            bp += lengths
        starts = starts_of([len(tokens) for tokens in texts])
        flat = list(chain.from_iterable(texts))
        ids = np.array(self._tokenizer.convert_tokens_to_ids(flat), dtype=np.int32)
        return TokenStream(ids=ids, token_bp=np.array(bp, dtype=np.int64), starts=starts)

    def _instead(self, sequence: str) -> int:
        if self.stand_in is None:
            raise ModelError(
                f"{self._name} has no token for {sequence[:20]!r} ({len(sequence)} nucleotides), and no unknown, mask "
                f"or padding token to stand for it; leave out such windows, or use another model"
            )
        return self.stand_in

    def _check_unknown(self, sequences: list[str], stream: TokenStream) -> None:
        """Raise if one unknown token stands for more nucleotides than a k-mer, and A, C, G or T is among them."""
        suspects = np.flatnonzero((stream.ids == self._tokenizer.unk_token_id) & (stream.token_bp > self._kmer_bp))
        if not len(suspects):
            return
        codes = Nucleotides.of(sequences).codes
        known = nucleotide_table(dict.fromkeys(_ALPHABET, 1), 0)[codes]
        n_known = np.concatenate([[0], np.cumsum(known)])
        ends = np.cumsum(stream.token_bp)[suspects]
        first = next(iter(np.flatnonzero(n_known[ends] > n_known[ends - stream.token_bp[suspects]])), None)
        if first is None:
            return
        index = int(np.searchsorted(stream.starts, suspects[first], side="right")) - 1
        raise ModelError(
            self._cannot(
                f"its tokenizer reads a window of {int(stream.token_bp[suspects[first]])} nucleotides as one unknown "
                f"token, {sequences[index][:12]}...; expected tokens for A, C, G and T. WordPiece does not read words "
                f"longer than max_input_chars_per_word (100): set a larger number in tokenizer.json"
            )
        )

    def _specials(self) -> tuple[list[int], list[int]]:
        """Find the special tokens in front and behind, by encoding a sample with and without them."""
        (whole,) = self._tokenizer([SAMPLE], add_special_tokens=True)["input_ids"]
        bare = self._content(SAMPLE)
        if not bare or all(token == self._tokenizer.unk_token_id for token in bare):
            raise ModelError(
                self._cannot(
                    f"its tokenizer reads {SAMPLE!r} as unknown; it may expect k-mers separated by spaces. Models "
                    f"such as DNABERT have their own family, see 'bend-hf models'"
                )
            )
        for front in range(len(whole) - len(bare) + 1):
            if whole[front : front + len(bare)] == bare:
                return whole[:front], whole[front + len(bare) :]
        raise ModelError(self._cannot("its tokenizer changes the tokens of a sequence when it adds special tokens"))

    def _check_nucleotides(self) -> None:
        """Raise if a nucleotide is unknown, or if two nucleotides have the same tokens."""
        runs = {letter: self._content(letter * _RUN_BP) for letter in _ALPHABET}
        unknown = {self._tokenizer.unk_token_id, *self._blanks.tolist()}
        missing = [letter for letter, tokens in runs.items() if all(token in unknown for token in tokens)]
        if missing:
            raise ModelError(
                self._cannot(
                    f"its tokenizer has no token for {' and '.join(missing)}; expected tokens for A, C, G and T. A "
                    f"model of RNA or protein does not read DNA"
                )
            )
        kinds = {tuple(tokens): letter for letter, tokens in runs.items()}
        if len(kinds) < len(_ALPHABET):
            raise ModelError(
                self._cannot(
                    f"its tokenizer gives the same tokens for several of A, C, G and T; it tells apart only "
                    f"{', '.join(sorted(kinds.values()))}. Use another model"
                )
            )

    def _content(self, sequence: str) -> list[int]:
        (tokens,) = self._tokenizer([sequence], add_special_tokens=False)["input_ids"]
        return list(tokens)

    def _text(self, token: int) -> str:
        return next((text for text, number in self._tokenizer.get_vocab().items() if number == token), str(token))


def ids_by_file(folder: Path) -> list[int] | None:
    """Return the token ids of ``LONG_SAMPLE`` by the ``tokenizer.json`` of a folder; None if it does not read DNA."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        encoded = Tokenizer.from_file(str(path)).encode(LONG_SAMPLE, add_special_tokens=False)
    except Exception:  # tokenizers raises nothing more specific; whoever reads the file says what is wrong
        return None
    bare = [_bare(token).upper() for token in encoded.tokens]
    n_read_bp = sum(len(token) for token in bare if token and set(token) <= set(_ALPHABET))
    return list(encoded.ids) if len(bare) > 1 and 2 * n_read_bp > len(LONG_SAMPLE) else None


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a folder with transformers, so that it cuts DNA as its ``tokenizer.json`` does.

    transformers 5 builds tokenizers of some classes anew from the vocabulary alone. If the file reads DNA in another
    way, or only the file does, the tokenizer of the file is used.

    Raises:
        Exception: transformers cannot load it, for one of many reasons.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    by_file = ids_by_file(folder)
    try:
        found: Tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if by_file is None or found([LONG_SAMPLE], add_special_tokens=False)["input_ids"][0] == by_file:
            return found
        reason = f"{type(found).__name__} cuts DNA into other tokens"
    except Exception as error:
        if by_file is None:
            raise
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    logger.warning("%s: its tokenizer.json is used as it is, because transformers builds another (%s)", folder, reason)
    as_it_is: Tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if as_it_is.unk_token is None:
        as_it_is.unk_token = as_it_is.backend_tokenizer.model.unk_token
    return as_it_is


def _bare(text: str) -> str:
    """Remove the marks of blanks and of parts of words from the text of a token."""
    return text.removeprefix(_CONTINUES).strip(_BLANKS)


def largest_id(stream: TokenStream, others: Sequence[int | None]) -> int:
    """Return the largest token id of a stream and of other tokens."""
    return max(int(stream.ids.max()), *(token for token in others if token is not None), 0)
