"""Tokenize with a byte-pair ``tokenizer.json``, and count the nucleotides of each token.

For GENA-LM, GROVER and DNABERT-2:

    tokenizer = BpeTokenizer.read(folder / "tokenizer.json")
    stream = tokenizer.stream(["ACGTNNNNNNNNNNNNACGT"])    # ids, token_bp, starts

A token stands for as many nucleotides as its text is long. ``[UNK]`` stands for one, and the token of a run of N for
the run. If these lengths do not add up to the sequence (a tokenizer may fuse unknown nucleotides), the offsets of the
tokenizer are used, and a nucleotide that no token covers becomes an ``[UNK]`` of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._alignment import TokenStream, sums
from bend_hf.embedders._encoding import encode_ids, merge_always
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import AlignmentError, ModelError
from bend_hf.files import parse_json
from bend_hf.types import Ints

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SPECIAL_TOKENS: Final = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
TINY_SPECIALS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # first ids of tiny vocabularies
_RUN_RULE: Final = re.compile(r"N\{(\d+),\}")  # the normalizer of GENA-LM's t2t tokenizers replaces N{10,} by "-"


@dataclass(frozen=True, kw_only=True)
class GapRule:
    """The normalizer that replaces a run of N by one token.

    Attributes:
        token: Id of the token.
        character: Text of the token.
        n_min: Minimum number of N in a run.
    """

    token: int
    character: str
    n_min: int

    def lengths_bp(self, nucleotides: Nucleotides) -> Ints:
        """Count the nucleotides of each such token over all sequences: of runs of N, and of the character itself."""
        is_n = nucleotides.codes == ord("N")
        opens = is_n.copy()
        opens[1:] &= ~is_n[:-1]
        opens[nucleotides.starts[:-1][nucleotides.lengths_bp > 0]] = is_n[
            nucleotides.starts[:-1][nucleotides.lengths_bp > 0]
        ]
        first = np.flatnonzero(opens)
        breaks = np.flatnonzero(~is_n)
        ends = np.append(breaks, len(is_n))[np.searchsorted(breaks, first)]
        ends = np.minimum(ends, nucleotides.starts[1:][np.searchsorted(nucleotides.starts[1:], first, side="right")])
        long = ends - first >= self.n_min
        literal = np.flatnonzero(nucleotides.codes == ord(self.character))
        places = np.concatenate([first[long], literal])
        lengths = np.concatenate([(ends - first)[long], np.ones(len(literal), dtype=np.int64)])
        ordered: Ints = lengths[np.argsort(places, kind="stable")]
        return ordered


@dataclass(frozen=True, kw_only=True)
class BpeTokenizer:
    """A fast tokenizer, and the lengths of its tokens.

    Attributes:
        backend: The tokenizer, without padding or truncation.
        bp_of_id: Nucleotides that each token is written with, 1 for ``[UNK]``, shape (V,).
        special: Ids of CLS, SEP, PAD, UNK and MASK by their text.
        gap: How the tokenizer replaces runs of N; None: it does not.
        runs: Pattern of a run of known nucleotides or one unknown nucleotide, for a tokenizer without an unknown
            token, which would drop unknown nucleotides and merge across them. None: it has an unknown token.
        name: Name of the tokenizer, for messages.
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
            ModelError: The file is missing or damaged, or it lacks CLS, SEP, PAD or UNK.
        """
        from tokenizers import Tokenizer

        if not path.is_file():
            raise ModelError(f"{path.parent} has no {path.name}; download the complete checkpoint")
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ModelError(f"{path} is not a tokenizer: {error}; download it again") from error
        merge_always(backend, str(path))
        backend.no_padding()
        backend.no_truncation()
        vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS[:4] if token not in vocabulary]
        if missing:
            raise ModelError(f"{path} lacks {', '.join(missing)}; expected a BERT-like vocabulary")
        bp_of_id = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
        bp_of_id[list(vocabulary.values())] = [len(text) for text in vocabulary]
        bp_of_id[vocabulary["[UNK]"]] = 1
        letters = "".join(sorted(text for text in vocabulary if len(text) == 1 and text.isalpha()))
        return cls(
            backend=backend,
            bp_of_id=bp_of_id,
            special={token: vocabulary[token] for token in SPECIAL_TOKENS if token in vocabulary},
            gap=_gap_rule(parse_json(path.read_text(encoding="utf-8")).get("normalizer"), vocabulary),
            runs=None if backend.model.unk_token else re.compile(f"[{letters}]+|[^{letters}]"),
            name=str(path),
        )

    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special tokens that the file adds in front of a sequence and behind it."""
        encoding = self.backend.encode("A")
        content = [place for place, is_special in enumerate(encoding.special_tokens_mask) if not is_special]
        first, last = content[0], content[-1] + 1
        return tuple(encoding.ids[:first]), tuple(encoding.ids[last:])

    def stream(self, sequences: Sequence[str]) -> TokenStream:
        """Tokenize S sequences without special tokens; the tokens cover each sequence exactly."""
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
        flat, starts = encode_ids(self.backend, sequences)
        nucleotides = Nucleotides.of(sequences)
        token_bp = self.bp_of_id[flat]
        if self.gap is not None:
            gaps = flat == self.gap.token
            if gaps.any():
                token_bp[gaps] = self._gap_lengths(nucleotides, int(gaps.sum()))
        if not np.array_equal(sums(token_bp, starts), nucleotides.lengths_bp) or not np.diff(starts).all():
            return self._by_offsets(sequences, nucleotides)
        return TokenStream(ids=flat, token_bp=token_bp, starts=starts)

    def _gap_lengths(self, nucleotides: Nucleotides, n_gaps: int) -> Ints:
        lengths = self.gap.lengths_bp(nucleotides) if self.gap is not None else np.zeros(0, dtype=np.int64)
        if len(lengths) != n_gaps:
            raise AlignmentError(
                f"{self.name} made {n_gaps} tokens for runs of N; expected {len(lengths)}. Only normalizers that strip "
                f"text or replace runs of N are supported"
            )
        return lengths

    def _by_offsets(self, sequences: Sequence[str], nucleotides: Nucleotides) -> TokenStream:
        encodings: list[Encoding] = self.backend.encode_batch(list(sequences), add_special_tokens=False)
        counts = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        n_tokens = int(counts.sum())
        flat = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int32, count=n_tokens)
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
        spans = np.fromiter(pairs, dtype=np.int64, count=2 * n_tokens).reshape(-1, 2)
        spans += np.repeat(nucleotides.starts[:-1], counts)[:, None]
        gaps = flat == self.gap.token if self.gap is not None else np.zeros(n_tokens, dtype=np.bool_)
        if gaps.any():  # the library gives a run the position of its last nucleotide
            spans[gaps, 0] = spans[gaps, 1] - self._gap_lengths(nucleotides, int(gaps.sum()))
        keep = spans[:, 1] > spans[:, 0]
        flat, spans = flat[keep], spans[keep]
        edges = np.zeros(len(nucleotides.codes) + 1, dtype=np.int64)
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
            starts=np.searchsorted(begin, nucleotides.starts).astype(np.int64),
        )


def _gap_rule(normalizer: object, vocabulary: dict[str, int]) -> GapRule | None:
    """Find the normalizer that replaces runs of N by one token."""
    if not isinstance(normalizer, dict):
        return None
    for step in normalizer.get("normalizers", [normalizer]):
        pattern = step.get("pattern", {}) if step.get("type") == "Replace" else {}
        match = _RUN_RULE.fullmatch(pattern.get("Regex", ""))
        character = step.get("content", "")
        if match and len(character) == 1 and character in vocabulary:
            return GapRule(token=vocabulary[character], character=character, n_min=int(match[1]))
    return None


def tiny_bpe(nucleotides: str, *, gap: bool) -> dict[str, object]:
    """Make a ``tokenizer.json`` with a few merges, for tiny checkpoints.

    Args:
        nucleotides: The single nucleotides of the vocabulary.
        gap: Replace runs of N by one token, as GENA-LM's tokenizers do.
    """
    merges = [("A", "C"), ("G", "T"), ("T", "T"), ("AC", "GT"), ("ACGT", "ACGT"), ("G", "A"), ("GA", "TT")]
    tokens = [*TINY_SPECIALS, *(["-"] if gap else []), *nucleotides, *("".join(pair) for pair in merges)]
    runs_of_n = {"type": "Replace", "pattern": {"Regex": "N{10,}"}, "content": "-"}
    split = {"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": runs_of_n if gap else None,
        "pre_tokenizer": split if gap else {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def vocabulary_size(tokenizer: Mapping[str, object]) -> int:
    """Count the tokens of a ``tokenizer.json`` that ``tiny_bpe`` made."""
    model = tokenizer["model"]
    return len(model["vocab"]) if isinstance(model, dict) else 0
