"""How far a worker with a static share is, as lines in its log, and read again from there.

Nobody looks into the cache of workers on other machines that share no disk. Each therefore logs one line when it starts
with a dataset, and one for each shard that it finishes.

>>> one = ShareProgress(model="dnabert2", label="gene_finding train", rank=2, n_processes=8, n_mine=11, n_shards=84)
>>> text = one.finished(seconds=61.5).text()
>>> text
'share 2/8: 1 of 11 shards finished, 1 now in 61.5 s; 84 shards of "gene_finding train" by "dnabert2"'
>>> read_progress(["other text", f"a bar {text}"]) == {("dnabert2", "gene_finding train"): one.finished(seconds=61.5)}
True
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

_NAME: Final = r'"(?:[^"\\]|\\.)*"'  # a string of JSON
_LINE: Final = re.compile(
    r"share (?P<rank>\d+)/(?P<n_processes>\d+): (?P<n_done>\d+) of (?P<n_mine>\d+) shards finished, "
    r"(?P<n_now>\d+) now in (?P<seconds>\d+\.\d) s; (?P<n_shards>\d+) shards of "
    rf"(?P<label>{_NAME}) by (?P<model>{_NAME})"
)
_COUNTS: Final = ("rank", "n_processes", "n_done", "n_mine", "n_now", "n_shards")


@dataclass(frozen=True, kw_only=True)
class ShareProgress:
    """The shards of one dataset that one worker computes.

    Attributes:
        model: Name of the model in the plan of the cache entry.
        label: Name of the data, such as ``gene_finding train``.
        rank: Number of the worker, from 0.
        n_processes: How many workers there are.
        n_mine: Shards of its share.
        n_shards: Shards of the dataset, of all workers.
        n_done: Shards of its share that are finished.
        n_now: Those of them that this process has finished.
        seconds: Time since this process began with the dataset.
    """

    model: str
    label: str
    rank: int
    n_processes: int
    n_mine: int
    n_shards: int
    n_done: int = 0
    n_now: int = 0
    seconds: float = 0.0

    def finished(self, *, seconds: float) -> ShareProgress:
        """Count one more shard.

        Args:
            seconds: Time since this process began with the dataset.
        """
        return replace(self, n_done=self.n_done + 1, n_now=self.n_now + 1, seconds=seconds)

    def text(self) -> str:
        """Write the line of the log."""
        return (
            f"share {self.rank}/{self.n_processes}: {self.n_done} of {self.n_mine} shards finished, {self.n_now} now "
            f"in {self.seconds:.1f} s; {self.n_shards} shards of {json.dumps(self.label)} by {json.dumps(self.model)}"
        )


def read_progress(lines: Iterable[str]) -> dict[tuple[str, str], ShareProgress]:
    """Read how far a worker is from its log: the last line of each model and dataset.

    Args:
        lines: The log; other lines, and what a progress bar wrote in front, do not matter.
    """
    found = {}
    for line in lines:
        match = _LINE.search(line)
        if match is not None:
            counts = {name: int(match[name]) for name in _COUNTS}
            model, label = json.loads(match["model"]), json.loads(match["label"])
            one = ShareProgress(**counts, model=model, label=label, seconds=float(match["seconds"]))
            found[one.model, one.label] = one
    return found
