"""Token ids of many sequences from a tokenizer of the ``tokenizers`` library, in several threads.

A core tokenizes 2 to 10 million nucleotides a second, fewer than a GPU embeds with a small model. The library has
threads of its own, but leaves them out after a fork, and where TOKENIZERS_PARALLELISM is false. Offsets take longer
than the tokens themselves, because the library makes Python objects of them; where the lengths of the tokens are known,
they are not needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._device import usable_cores
from bend_hf.embedders._windows import starts_of
from bend_hf.types import Ints

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

logger = logging.getLogger(__name__)

_MOST_THREADS: Final = 8
_BP_PER_THREAD: Final = 1 << 16


def merge_always(backend: Tokenizer, name: str) -> None:
    """Turn off the dropout of merges, which would draw other tokens for a sequence each time.

    Args:
        backend: The tokenizer.
        name: Name of the model or file, for the log.
    """
    dropout = getattr(backend.model, "dropout", None)
    if dropout:
        logger.info("%s: its tokenizer leaves out merges at random (dropout %s), which is turned off", name, dropout)
        backend.model.dropout = None


def encode_ids(backend: Tokenizer, sequences: Sequence[str]) -> tuple[NDArray[np.int32], Ints]:
    """Encode S sequences, without special tokens.

    Args:
        backend: The tokenizer, without padding or truncation.
        sequences: The sequences, ready for the tokenizer.

    Returns:
        The N token ids of all sequences, shape (N,), and where those of each start, shape (S + 1,).
    """
    ends_bp = np.cumsum([len(sequence) for sequence in sequences])
    n_bp = int(ends_bp[-1]) if len(ends_bp) else 0
    n_threads = min(usable_cores(), _MOST_THREADS, n_bp // _BP_PER_THREAD)
    if n_threads < 2:
        ids, counts = _encode_part(backend, list(sequences))
        return ids, starts_of(counts)
    cuts = np.searchsorted(ends_bp, np.arange(1, n_threads) * n_bp // n_threads, side="right")
    parts = [list(sequences[first:last]) for first, last in pairwise([0, *cuts.tolist(), len(sequences)])]
    with ThreadPoolExecutor(n_threads, thread_name_prefix="tokenize") as threads:
        done = list(threads.map(partial(_encode_part, backend), parts))
    return np.concatenate([ids for ids, _ in done]), starts_of(list(chain.from_iterable(counts for _, counts in done)))


def _encode_part(backend: Tokenizer, sequences: list[str]) -> tuple[NDArray[np.int32], list[int]]:
    encodings: list[Encoding] = backend.encode_batch_fast(sequences, add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    return np.fromiter(chain.from_iterable(ids), dtype=np.int32), [len(one) for one in ids]
