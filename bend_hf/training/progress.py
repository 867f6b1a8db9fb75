"""A progress bar on the main process.

with Bar(accelerator, "gene_finding", unit="step") as bar:
    bar.at(3, 100)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


class Bar:
    """How much of something is done.

    Args:
        accelerator: Says which process is the main one.
        name: What is done.
        unit: What is counted.
    """

    def __init__(self, accelerator: Accelerator, name: str, *, unit: str) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(desc=name, unit=unit, disable=not accelerator.is_main_process, dynamic_ncols=True)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def at(self, done: int, total: int) -> None:
        """So many of so many are done."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def with_loss(self, done: int, total: int, loss: float) -> None:
        """The same, with the loss so far."""
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.at(done, total)
