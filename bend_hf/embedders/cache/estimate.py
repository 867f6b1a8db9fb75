"""The size and time of a cache, estimated from a few sequences before it is filled.

>>> duration(5400.0)
'1 h 30 min'
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import CacheError, ModelError
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

_SAMPLED: Final = 32
_SAMPLED_BP: Final = 65_536  # tokenized for the number of embeddings
_TIMED_BP: Final = 4_096  # embedded for the speed
_SPARE: Final = 1.02  # the disk must hold the estimate and a little more


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What filling a cache costs.

    Attributes:
        n_bytes: Bytes to write.
        free_bytes: Free bytes on the disk.
        seconds: Time of all processes together; None if the work is too short to measure.
    """

    n_bytes: int
    free_bytes: int
    seconds: float | None

    def check(self, folder: Path) -> None:
        """Check that the disk is large enough.

        Raises:
            CacheError: It is not.
        """
        if self.n_bytes * _SPARE > self.free_bytes:
            raise CacheError(
                f"embeddings of about {self.n_bytes / 1e9:.2f} GB do not fit on the disk of {folder}, which has "
                f"{self.free_bytes / 1e9:.2f} GB free. Give another folder with --cache or a smaller --cache-dtype, or "
                "train without a cache: 'bend-hf train --no-cache'."
            )

    def text(self) -> str:
        """Describe it for the log."""
        time_text = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"about {self.n_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.1f} GB free{time_text}"


def duration(seconds: float) -> str:
    """Format a duration in hours and minutes, or in seconds if it is short."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def estimate_embeddings_per_bp(embedder: Embedder, dataset: Dataset, lengths_bp: Ints) -> float:
    """Count token embeddings per nucleotide over some sequences spread evenly; nothing is embedded."""
    sequences: list[str] = []
    n_bp = 0
    for item in np.unique(np.linspace(0, len(lengths_bp) - 1, _SAMPLED).astype(np.int64)):
        if sequences and n_bp + lengths_bp[item] > _SAMPLED_BP:
            break
        sequences.append(dataset[int(item)]["sequence"])
        n_bp += int(lengths_bp[item])
    if not sequences or embedder.reverse_complement_average:
        return 1.0
    if embedder.pooled:
        return len(sequences) / n_bp
    try:
        return min(1.0, len(embedder.tokenize(sequences).embedding_bp) / n_bp)
    except ModelError:  # a user's model has no tokens and one embedding per nucleotide
        return 1.0


def estimate_cost(
    folder: Path, embedder: Embedder, dataset: Dataset, *, n_bytes: int, n_bp: int, n_processes: int
) -> Estimate:
    """Estimate the bytes and the time of filling a cache.

    Args:
        folder: Where the cache is; created if it does not exist.
        embedder: Timed on one sequence if the work is long.
        dataset: What is embedded.
        n_bytes: Bytes to write.
        n_bp: Nucleotides to embed.
        n_processes: Processes that share the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = None
    if n_bp > 50 * _TIMED_BP:
        sequence = dataset[0]["sequence"][:_TIMED_BP]
        embedder.embed_tokens([sequence[:64]])  # moves the model to its device
        started = time.perf_counter()
        embedder.embed_tokens([sequence])
        seconds = (time.perf_counter() - started) / len(sequence) * n_bp / n_processes
    return Estimate(n_bytes=n_bytes, free_bytes=shutil.disk_usage(folder).free, seconds=seconds)
