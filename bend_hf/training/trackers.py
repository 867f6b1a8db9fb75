"""Send the loss and validation metric of each epoch to experiment trackers.

>>> check_trackers(["tensorbord"])
Traceback (most recent call last):
bend_hf.errors.ConfigError: unknown --tracker 'tensorbord'; did you mean 'tensorboard'?
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from bend_hf.training.head_trainer import Epoch

TRACKERS: Final = ("tensorboard", "trackio", "wandb")
_PROJECT: Final = "bend_hf"


def check_trackers(names: Sequence[str]) -> None:
    """Check that each tracker is known and installed. Accelerate would silently ignore it.

    Raises:
        ConfigError: One is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"unknown --tracker {name!r}; {did_you_mean(name, list(TRACKERS))}")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--tracker {name}: the package {name!r} is not installed; pip install {name}")


@contextmanager
def tracking(
    names: Sequence[str], *, run: str, settings: Mapping[str, object], folder: Path
) -> Iterator[Callable[[Epoch], None]]:
    """Open the trackers of one training, and yield a function that sends them an epoch.

    Args:
        names: Keys of the trackers.
        run: Name of the training.
        settings: Settings of the run by name, sent once.
        folder: Folder for trackers that write files.

    Yields:
        A function that takes an ``Epoch``.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    opened: list[Any] = []
    for name in names:
        tracker_class = LOGGER_TYPE_TO_CLASS[name]
        if tracker_class.requires_logging_directory:
            tracker = tracker_class(run, folder)
        else:
            tracker = tracker_class(_PROJECT, name=run)
        tracker.start()
        tracker.store_init_configuration(_plain(settings))
        opened.append(tracker)

    def log_epoch(epoch: Epoch) -> None:
        values = {"train/loss": epoch.loss, "seconds": epoch.seconds}
        if epoch.validation is not None:
            values["validation"] = epoch.validation
        for tracker in opened:
            tracker.log(values, step=epoch.epoch)

    try:
        yield log_epoch
    finally:
        for tracker in opened:
            tracker.finish()


def _plain(settings: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """Return the settings with values of types that every tracker takes."""
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in settings.items()
    }
