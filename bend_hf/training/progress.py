"""A progress bar on the main process.

with Bar(accelerator, "gene_finding", unit="step") as bar:
    bar.at(3, 100)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bend_hf.files import shows_progress

if TYPE_CHECKING:
    from accelerate import Accelerator


class Bar:
    """A bar for work that is counted.

    Args:
        accelerator: Only the main process shows the bar.
        name: Name of the work.
        unit: What is counted.
    """

    def __init__(self, accelerator: Accelerator, name: str, *, unit: str) -> None:
        from tqdm.auto import tqdm

        shown = accelerator.is_main_process and shows_progress()
        self._bar = tqdm(desc=name, unit=unit, disable=not shown, dynamic_ncols=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def at(self, done: int, total: int) -> None:
        """Set the bar to ``done`` of ``total``."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def with_loss(self, done: int, total: int, loss: float) -> None:
        """Set the bar, and show the loss next to it; nan stands for a loss that nobody waits for the device to read."""
        if not math.isnan(loss):
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.at(done, total)
