"""The tokenizer of single letters, written in the form of the tokenizers library.

>>> letter_vocabulary("acgt")["a"]
3
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Order and spelling of BEND's published tokenizer.json, which GPN's first release has too.
PADDING, MASK, UNKNOWN = "[PAD]", "[MASK]", "[UNK]"
_SPECIALS: Final = (PADDING, MASK, UNKNOWN)
LETTER_IDS: Final = (3, 4, 5, 6, 2, 1)  # A, C, G, T, N (unknown) and the mask
VOCABULARY_SIZE: Final = 7


def letter_vocabulary(letters: str) -> dict[str, int]:
    """Token ids: padding 0, mask 1, unknown 2, then the letters."""
    return {word: number for number, word in enumerate((*_SPECIALS, *letters))}


def write_letters(folder: Path, window_bp: int) -> None:
    """The tokenizer of a model whose context has no limit; it reads either case, and N as unknown."""
    _write(folder, longest=None)


def write_letters_of_a_window(folder: Path, window_bp: int) -> None:
    """The same for a model that reads no more letters than it was trained on."""
    _write(folder, longest=window_bp)


def _write(folder: Path, *, longest: int | None) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocab=letter_vocabulary("acgt"), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    limit = {} if longest is None else {"model_max_length": longest}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, mask_token=MASK, unk_token=UNKNOWN, **limit
    ).save_pretrained(folder)
