"""Byte-pair tokens out of a ``tokenizer.json``, with the nucleotides that each stands for.

For GENA-LM and GROVER, in one call for a whole batch of sequences:

    tokenizer = BpeTokenizer.read(folder / "tokenizer.json")
    stream = tokenizer.stream(["ACGTNNNNNNNNNNNNACGT"])    # ids, token_bp, starts

Texts give the lengths: a token stands for the letters it is written with, ``[UNK]`` for one, and the token of a run
of N for the run. Where that does not add up (a tokenizer that fuses unknown letters) the offsets decide, and a letter
that no token covers becomes an ``[UNK]`` of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._alignment import TokenStream, sums
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import AlignmentError, ModelError
from bend_hf.types import Ints

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SPECIAL_TOKENS: Final = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
_RUN_RULE: Final = re.compile(r"N\{(\d+),\}")  # the normaliser of GENA-LM's t2t tokenizers: N{10,} becomes "-"


@dataclass(frozen=True, kw_only=True)
class GapRule:
    """The normaliser that writes a run of N as one token.

    Attributes:
        token: Id of that token.
        letter: What it is written with.
        n_min: Fewest N that make a run.
    """

    token: int
    letter: str
    n_min: int

    def lengths_bp(self, letters: Nucleotides) -> Ints:
        """Nucleotides of each such token over all sequences, in order: runs of N, and the letter itself."""
        is_n = letters.codes == ord("N")
        opens = is_n.copy()
        opens[1:] &= ~is_n[:-1]
        opens[letters.starts[:-1][letters.lengths_bp > 0]] = is_n[letters.starts[:-1][letters.lengths_bp > 0]]
        first = np.flatnonzero(opens)
        breaks = np.flatnonzero(~is_n)
        ends = np.append(breaks, len(is_n))[np.searchsorted(breaks, first)]
        ends = np.minimum(ends, letters.starts[1:][np.searchsorted(letters.starts[1:], first, side="right")])
        long = ends - first >= self.n_min
        literal = np.flatnonzero(letters.codes == ord(self.letter))
        places = np.concatenate([first[long], literal])
        lengths = np.concatenate([(ends - first)[long], np.ones(len(literal), dtype=np.int64)])
        ordered: Ints = lengths[np.argsort(places, kind="stable")]
        return ordered


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer:
    """A fast tokenizer and what its vocabulary says about lengths.

    Attributes:
        backend: The tokenizer, without padding or truncation.
        bp_of_id: Nucleotides that each token is written with, 1 for ``[UNK]``, shape (V,).
        special: Id of each of CLS, SEP, PAD, UNK and MASK by its text.
        gap: How runs of N are written, where the tokenizer does so.
        runs: What matches a run of known letters or one unknown letter, for a tokenizer without an unknown token:
            left to itself it drops such letters and merges across them. None: it has one.
        name: For messages.
    """

    backend: Tokenizer
    bp_of_id: Ints
    special: dict[str, int]
    gap: GapRule | None
    runs: re.Pattern[str] | None
    name: str

    @classmethod
    def read(cls, path: Path) -> BpeTokenizer:
        """Read a ``tokenizer.json``.

        Raises:
            ModelError: There is no such file, it is damaged, or it lacks CLS, SEP, PAD or UNK.
        """
        from tokenizers import Tokenizer

        if not path.is_file():
            raise ModelError(f"{path.parent} has no {path.name}; expected the tokenizer that was published with it")
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ModelError(f"{path} is no tokenizer: {error}; download it again") from error
        backend.no_padding()
        backend.no_truncation()
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        lacking = [token for token in SPECIAL_TOKENS[:4] if token not in vocabulary]
        if lacking:
            raise ModelError(f"{path} lacks {', '.join(lacking)}; expected a BERT-like vocabulary")
        bp_of_id = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        bp_of_id[list(vocabulary.values())] = [len(text) for text in vocabulary]
        bp_of_id[vocabulary["[UNK]"]] = 1
        letters = "".join(sorted(text for text in vocabulary if len(text) == 1 and text.isalpha()))
        return cls(
            backend=backend,
            bp_of_id=bp_of_id,
            special={token: vocabulary[token] for token in SPECIAL_TOKENS if token in vocabulary},
            gap=_gap_rule(json.loads(path.read_text(encoding="utf-8")).get("normalizer"), vocabulary),
            runs=None if backend.model.unk_token else re.compile(f"[{letters}]+|[^{letters}]"),
            name=str(path),
        )

    def stream(self, sequences: Sequence[str]) -> TokenStream:
        """Tokens of S sequences without specials, each sequence covered exactly."""
        if self.runs is not None:
            return self._by_runs(sequences, self.runs)
        return self._whole(sequences)

    def _by_runs(self, sequences: Sequence[str], runs: re.Pattern[str]) -> TokenStream:
        parts = [runs.findall(sequence) for sequence in sequences]
        flat = list(chain.from_iterable(parts))
        known = np.array([self.backend.token_to_id(part[0]) is not None for part in flat], dtype=np.bool_)
        inner = self._whole([part for part, is_known in zip(flat, known, strict=True) if is_known])
        counts = np.ones(len(flat), dtype=np.int64)
        counts[known] = np.diff(inner.starts)
        starts = starts_of(counts)
        inside = np.repeat(known, counts)
        ids = np.full(len(inside), self.special["[UNK]"], dtype=np.int32)
        ids[inside] = inner.ids
        token_bp = np.ones(len(inside), dtype=np.int64)
        token_bp[inside] = inner.token_bp
        return TokenStream(ids=ids, token_bp=token_bp, starts=starts[starts_of([len(part) for part in parts])])

    def _whole(self, sequences: Sequence[str]) -> TokenStream:
        encodings: list[Encoding] = self.backend.encode_batch_fast(list(sequences), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        starts = starts_of([len(one) for one in ids])
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(starts[-1]))
        letters = Nucleotides.of(sequences)
        token_bp = self.bp_of_id[flat]
        if self.gap is not None:
            gaps = flat == self.gap.token
            if gaps.any():
                token_bp[gaps] = self._gap_lengths(letters, int(gaps.sum()))
        if not np.array_equal(sums(token_bp, starts), letters.lengths_bp) or not np.diff(starts).all():
            return self._by_offsets(sequences, letters)
        return TokenStream(ids=flat, token_bp=token_bp, starts=starts)

    def _gap_lengths(self, letters: Nucleotides, n_gaps: int) -> Ints:
        lengths = self.gap.lengths_bp(letters) if self.gap is not None else np.zeros(0, dtype=np.int64)
        if len(lengths) != n_gaps:
            raise AlignmentError(
                f"{self.name} wrote {n_gaps} runs of N where its normaliser should write {len(lengths)}; its "
                f"normalisers do more than strip and replace runs of N, which is all that is understood here"
            )
        return lengths

    def _by_offsets(self, sequences: Sequence[str], letters: Nucleotides) -> TokenStream:
        encodings: list[Encoding] = self.backend.encode_batch(list(sequences), add_special_tokens=False)
        counts = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        n_tokens = int(counts.sum())
        flat = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int32, count=n_tokens)
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
        spans = np.fromiter(pairs, dtype=np.int64, count=2 * n_tokens).reshape(-1, 2)
        spans += np.repeat(letters.starts[:-1], counts)[:, None]
        gaps = flat == self.gap.token if self.gap is not None else np.zeros(n_tokens, dtype=np.bool_)
        if gaps.any():  # the library gives a run the place of its last letter only
            spans[gaps, 0] = spans[gaps, 1] - self._gap_lengths(letters, int(gaps.sum()))
        keep = spans[:, 1] > spans[:, 0]
        flat, spans = flat[keep], spans[keep]
        edges = np.zeros(len(letters.codes) + 1, dtype=np.int64)
        np.add.at(edges, spans[:, 0], 1)
        np.add.at(edges, spans[:, 1], -1)
        bare = np.flatnonzero(np.cumsum(edges)[:-1] == 0)
        unknown = np.full(len(bare), self.special["[UNK]"], dtype=np.int32)
        order = np.argsort(np.concatenate([spans[:, 0], bare]), kind="stable")
        begin = np.concatenate([spans[:, 0], bare])[order]
        token_bp = np.concatenate([spans[:, 1] - spans[:, 0], np.ones(len(bare), dtype=np.int64)])[order]
        return TokenStream(
            ids=np.concatenate([flat, unknown])[order],
            token_bp=token_bp,
            starts=np.searchsorted(begin, letters.starts).astype(np.int64),
        )


def _gap_rule(normalizer: object, vocabulary: dict[str, int]) -> GapRule | None:
    """The rule among a tokenizer's normalisers that writes runs of N as one token."""
    if not isinstance(normalizer, dict):
        return None
    for part in normalizer.get("normalizers", [normalizer]):
        pattern = part.get("pattern", {}) if part.get("type") == "Replace" else {}
        match = _RUN_RULE.fullmatch(pattern.get("Regex", ""))
        letter = part.get("content", "")
        if match and len(letter) == 1 and letter in vocabulary:
            return GapRule(token=vocabulary[letter], letter=letter, n_min=int(match[1]))
    return None
