"""How far a training is: a bar on a terminal, a line now and then where there is none.

>>> line(step=200, n_steps=1000, loss=1.35, nucleotides_per_second=40_000.0, seconds_left=4000.0)
'step 200 of 1,000: loss 1.3500, 40,000 nucleotides/s, 1:06:40 left'
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

_LINE_EVERY_SECONDS: Final = 30.0


def line(*, step: int, n_steps: int, loss: float, nucleotides_per_second: float, seconds_left: float) -> str:
    """What is told of a step."""
    return (
        f"step {step} of {n_steps:,}: loss {loss:.4f}, {nucleotides_per_second:,.0f} nucleotides/s, "
        f"{clock(seconds_left)} left"
    )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(75.4)
    '0:01:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Progress:
    """Told of steps, it tells the user.

    Args:
        n_steps: Of the whole training.
        step: Those that lie behind it already.
        nucleotides: That a step reads.
        shown: False on all processes but the first.
    """

    def __init__(self, *, n_steps: int, step: int, nucleotides: int, shown: bool) -> None:
        self._n_steps, self._first, self._nucleotides, self._shown = n_steps, step, nucleotides, shown
        self._on_terminal = shown and sys.stderr.isatty()
        self._told_at = self._started = time.monotonic()
        self._away_seconds = 0.0

    def __enter__(self) -> Progress:
        from tqdm.auto import tqdm

        self._bar = tqdm(
            total=self._n_steps, initial=self._first, unit="step", disable=not self._on_terminal, dynamic_ncols=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def at(self, step: int, loss: float) -> None:
        """So many steps are done, and the last losses were about this."""
        if not self._shown:
            return
        now = time.monotonic()
        speed = (step - self._first) / max(now - self._started - self._away_seconds, 1e-9)  # steps a second
        if self._on_terminal:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {speed * self._nucleotides:,.0f} nt/s", refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._told_at >= _LINE_EVERY_SECONDS:
            self._told_at = now
            log.info(
                line(
                    step=step,
                    n_steps=self._n_steps,
                    loss=loss,
                    nucleotides_per_second=speed * self._nucleotides,
                    seconds_left=(self._n_steps - step) / max(speed, 1e-9),
                )
            )

    def away(self, seconds: float) -> None:
        """So long was spent on something else than steps: a validation, a checkpoint."""
        self._away_seconds += seconds

    def say(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self._on_terminal:
            self._bar.write(text, file=sys.stderr)
        elif self._shown:
            log.info(text)
