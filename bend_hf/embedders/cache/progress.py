"""How far the making of a cache is: nucleotides a second, bytes written, time left.

>>> so_far = Progress(total_bp=1000, done_bp=600, made_bp=200, made_bytes=4_000_000, seconds=2.0)
>>> so_far.bp_per_second, so_far.seconds_left
(100.0, 4.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias


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
