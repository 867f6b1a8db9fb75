"""What a cache will cost, before it is begun: bytes and time, from a few sequences of the data itself.

>>> duration(5400.0)
'1 h 30 min'

How far the making of a cache is: nucleotides a second, bytes written, time left.

>>> so_far = Progress(total_bp=1000, done_bp=600, made_bp=200, made_bytes=4_000_000, seconds=2.0)
>>> so_far.bp_per_second, so_far.seconds_left
(100.0, 4.0)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from bend_hf.errors import CacheError, ModelError
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

_SAMPLED: Final = 32
_SAMPLED_BP: Final = 65_536  # tokenized for the size of the rows
_TIMED_BP: Final = 4_096  # embedded for the speed
_SPARE: Final = 1.02  # the disk must hold the forecast and a little more


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is to come.

    Attributes:
        n_bytes: To be written.
        free_bytes: On the disk.
        seconds: Of work, over all processes together; None where the work is too short to ask.
    """

    n_bytes: int
    free_bytes: int
    seconds: float | None

    def check(self, folder: Path) -> None:
        """Raises where the disk is too small.

        Raises:
            CacheError: It is.
        """
        if self.n_bytes * _SPARE > self.free_bytes:
            raise CacheError(
                f"embeddings of about {self.n_bytes / 1e9:.2f} GB do not fit on the disk of {folder}, which has "
                f"{self.free_bytes / 1e9:.2f} GB free; give another cache folder, a narrower dtype or fewer splits, "
                "or embed without a disk: --no-cache"
            )

    def text(self) -> str:
        """In words."""
        time_text = "" if self.seconds is None else f", about {duration(self.seconds)}"
        return f"about {self.n_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.1f} GB free{time_text}"


def duration(seconds: float) -> str:
    """Hours and minutes, or seconds where it is short."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def sample_rows_per_bp(embedder: Embedder, dataset: Dataset, lengths_bp: Ints) -> float:
    """Token rows a nucleotide, over some sequences spread evenly; nothing is embedded."""
    sequences: list[str] = []
    n_bp = 0
    for row in np.unique(np.linspace(0, len(lengths_bp) - 1, _SAMPLED).astype(np.int64)):
        if sequences and n_bp + lengths_bp[row] > _SAMPLED_BP:
            break
        sequences.append(dataset[int(row)]["sequence"])
        n_bp += int(lengths_bp[row])
    if not sequences or embedder.reverse_complement_average:
        return 1.0
    try:
        return min(1.0, len(embedder.tokenize(sequences).embedding_bp) / n_bp)
    except ModelError:  # a model of the user's own has no tokens, and a row a nucleotide
        return 1.0


def forecast(
    folder: Path, embedder: Embedder, dataset: Dataset, *, n_bytes: int, nucleotides: int, world: int
) -> Forecast:
    """Bytes and time of work to come.

    Args:
        folder: Where it will lie; made if it is not there.
        embedder: Is timed on a sequence, where the work is long.
        dataset: What is embedded.
        n_bytes: To be written.
        nucleotides: To be embedded.
        world: Processes that share the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = None
    if nucleotides > 50 * _TIMED_BP:
        sequence = dataset[0]["sequence"][:_TIMED_BP]
        embedder.embed_tokens([sequence[:64]])  # moves the model to its device
        begun = time.perf_counter()
        embedder.embed_tokens([sequence])
        seconds = (time.perf_counter() - begun) / len(sequence) * nucleotides / world
    return Forecast(n_bytes=n_bytes, free_bytes=shutil.disk_usage(folder).free, seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A moment of the work.

    Attributes:
        total_bp: Nucleotides of all shards that are wanted.
        done_bp: Of these, those that are embedded, by whomever and whenever.
        made_bp: Those that this process embedded now.
        made_bytes: What it wrote.
        seconds: Since it began.
        others_bp: Those that other processes finished since it began.
    """

    total_bp: int
    done_bp: int
    made_bp: int
    made_bytes: int
    seconds: float
    others_bp: int = 0

    @property
    def bp_per_second(self) -> float:
        """Nucleotides a second over all processes."""
        return (self.made_bp + self.others_bp) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        return (self.total_bp - self.done_bp) / self.bp_per_second if self.made_bp + self.others_bp else None


Report: TypeAlias = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Says nothing."""


@contextmanager
def bar(title: str, *, shown: bool) -> Iterator[Report]:
    """A progress bar; one that is not shown swallows its reports."""
    if not shown:
        yield silent
        return
    from tqdm.auto import tqdm

    with tqdm(desc=title, unit="nt", unit_scale=True, dynamic_ncols=True) as drawn:

        def report(progress: Progress) -> None:
            drawn.total = progress.total_bp
            if drawn.n == 0 and not progress.made_bp:
                drawn.initial = progress.done_bp  # what was there before says nothing about the speed
            drawn.set_postfix_str(f"{progress.made_bytes / 1e9:.2f} GB written", refresh=False)
            drawn.update(progress.done_bp - drawn.n)

        yield report
