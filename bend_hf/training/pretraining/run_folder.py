"""The folder of a pretraining and its progress. Each file is written completely or not at all.

    OUT/config.json, model.safetensors, tokenizer files    the model of the last checkpoint
    OUT/best/                                              the model of the best validation, if not the last
    OUT/step-500/                                          earlier checkpoints, as many as --keep
    OUT/training/run.json                                  configuration and data of the run
    OUT/training/losses.csv, validation.csv                loss of each step, each validation
    OUT/training/tables.json                               n-gram tables that the model is compared with
    OUT/training/summary.json                              written last
    OUT/training/run.lock                                  while a process trains
    OUT/training/last.safetensors, best-N.safetensors      the training state, until the training is finished

>>> line(step=200, n_steps=1000, loss=1.35, nucleotides_per_second=40_000.0, seconds_left=4000.0)
'step 200 of 1,000: loss 1.3500, 40,000 nucleotides/s, 1:06:40 left'
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.config import settings_in_key
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.audit.pretraining import REGION_FILES
from bend_hf.evaluation.record import jsonable
from bend_hf.files import explain_write_errors, parse_json, shows_progress, write_text
from bend_hf.lease import Lease, take_for_long
from bend_hf.training.checkpoints import Checkpoints
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.families import Family
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.validation import Validation
from bend_hf.types import Json

if TYPE_CHECKING:
    from types import TracebackType

    from transformers import PreTrainedModel

_HEADER: Final = "step,loss,learning_rate,seconds"
_STEP: Final = "step-"
_LOCK: Final = "run.lock"


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The loss of one step.

    Attributes:
        step: Counted from 1.
        loss: Weighted mean over the targets of the step, in nats.
        learning_rate: Learning rate of the step.
        seconds: Seconds of training since the first step.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float

    def line(self) -> str:
        """Return the row of the file, with the loss and the rate to the last bit."""
        return f"{self.step},{self.loss!r},{self.learning_rate!r},{self.seconds:.3f}\n"


class RunFolder:
    """The folder of one pretraining; only one process writes to it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.training = out / "training"
        self.run, self.summary = self.training / "run.json", self.training / "summary.json"
        self.losses, self.validation = self.training / "losses.csv", self.training / "validation.csv"
        self.tables = self.training / "tables.json"
        self.regions = out / REGION_FILES[0]

    def checkpoints(self, *, writes: bool) -> Checkpoints:
        """Return the checkpoints of the training."""
        return Checkpoints(self.training, writes=writes)

    def claim(self, config: PretrainConfig, data: Mapping[str, Json]) -> Lease | None:
        """Claim the folder for this run, or check that it belongs to it; on the main process.

        Returns:
            The lease that keeps other runs out until it is released; None if the training is finished.

        Raises:
            ConfigError: The folder belongs to another run, holds other files, is in use, or cannot be written to.
        """
        mine = {"config": _settings(config), "data": dict(data)}
        if self.run.exists():
            self._compare(mine)
            if self.summary.exists():
                return None
        elif self.out.is_dir() and any(self.out.iterdir()) and not self._unfinished():
            held = ", ".join(sorted(path.name for path in self.out.iterdir())[:5])
            raise ConfigError(f"--out {self.out} holds files of something else ({held}); give another folder")
        try:
            self.training.mkdir(parents=True, exist_ok=True)
            lease = take_for_long(self.training / _LOCK)
            if lease is None:
                raise ConfigError(
                    f"another process is training in --out {self.out}; wait until it is finished, or give another "
                    "folder"
                )
            try:
                if not self.run.exists():
                    write_text(self.run, json.dumps(mine, indent=2) + "\n")
                for left in self.out.glob("**/.*.part*"):  # of an interrupted run
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            except BaseException:
                lease.release()
                raise
        except (OSError, RecordError) as error:
            raise ConfigError(f"--out {self.out} cannot be written to ({error}); give another folder") from error
        return lease

    def _unfinished(self) -> bool:
        """Return whether there are only files of a run that was interrupted while it claimed the folder."""
        return all(path == self.training for path in self.out.iterdir()) and all(
            path.name.startswith((".run.json", _LOCK)) for path in self.training.iterdir()
        )

    def _compare(self, mine: Mapping[str, Mapping[str, Json]]) -> None:
        try:
            theirs = parse_json(self.run.read_text(encoding="utf-8"))
            theirs["config"] = {**_default_settings(), **theirs["config"]}
            differ = [
                f"{name} is {theirs[part].get(name)!r} there and {mine[part].get(name)!r} here"
                for part in ("config", "data")
                for name in sorted({*theirs[part], *mine[part]})
                if theirs[part].get(name) != mine[part].get(name)
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self.run} cannot be read ({error}); give another --out, or delete it") from error
        if differ:
            raise ConfigError(
                f"--out {self.out} holds another training: {'; '.join(differ[:5])}. Give another --out, or the same "
                "flags and genome to resume that training"
            )

    def rewind(self, step: int) -> None:
        """Cut the losses after a step, as a run resumes from there.

        Raises:
            ConfigError: Losses of earlier steps are missing.
        """
        kept: list[str] = []
        if step and self.losses.exists():
            lines = self.losses.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
            kept = [line for line in lines if line.endswith("\n") and int(line.split(",", 1)[0]) <= step]
        if len(kept) != step:
            raise ConfigError(
                f"{self.losses} holds {len(kept)} of the {step} steps of the checkpoint next to it; restore the file, "
                f"or delete {self.training} to start over"
            )
        write_text(self.losses, _HEADER + "\n" + "".join(kept))

    def append(self, losses: Sequence[StepLoss]) -> None:
        """Append the losses of some steps."""
        with explain_write_errors(self.losses), self.losses.open("a", encoding="utf-8") as file:
            file.writelines(loss.line() for loss in losses)

    def settle(self) -> None:
        """Flush the losses to the disk, before a checkpoint says that these steps are done."""
        with explain_write_errors(self.losses), self.losses.open("rb") as file:
            os.fsync(file.fileno())

    def write_validations(self, validations: Sequence[Validation]) -> None:
        """Write all validations so far."""
        lines = [f"{one.step},{one.perplexity!r},{one.n_letters},{one.seconds}\n" for one in validations]
        write_text(self.validation, "step,perplexity,letters,seconds\n" + "".join(lines))

    def write_model(self, network: PreTrainedModel, family: Family, config: PretrainConfig) -> None:
        """Write the model, in place of an older one."""
        write_model(self.out, network, family, config)

    def write_regions(self, regions: Regions) -> None:
        """Write the regions that are trained on next to the model, where ``bend-hf audit --model`` looks for them."""
        regions.write_bed(self.regions)

    def _copy_regions(self, folder: Path) -> None:
        if self.regions.is_file():
            write_text(folder / self.regions.name, self.regions.read_text(encoding="utf-8"))

    def keep_step(self, network: PreTrainedModel, family: Family, config: PretrainConfig, step: int) -> None:
        """Keep the model of a step, with ``--keep``, and delete the oldest ones."""
        if not config.keep:
            return
        write_model(self.out / f"{_STEP}{step}", network, family, config)
        self._copy_regions(self.out / f"{_STEP}{step}")
        steps = sorted(int(path.name.removeprefix(_STEP)) for path in self.out.glob(f"{_STEP}*[0-9]"))
        for old in steps[: -config.keep]:
            shutil.rmtree(self.out / f"{_STEP}{old}", ignore_errors=True)

    def write_best(self, network: PreTrainedModel, family: Family, config: PretrainConfig) -> None:
        """Write the best model into its own folder."""
        write_model(self.out / "best", network, family, config)
        self._copy_regions(self.out / "best")

    def delete_checkpoints(self) -> None:
        """Delete the checkpoints, after the summary is written."""
        for path in (self.training / "last.safetensors", *self.training.glob("best-*.safetensors")):
            path.unlink(missing_ok=True)


def write_model(folder: Path, network: PreTrainedModel, family: Family, config: PretrainConfig) -> None:
    """Write a model folder that the embedders, and transformers if it has the network, can load.

    Raises:
        RecordError: The folder cannot be written.
    """
    part = folder / f".model.part{os.getpid()}"
    try:
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _without_bars():
                network.save_pretrained(part)
            family.write_tokenizer(part, config.window_bp)
            for path in sorted(part.iterdir()):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Disable the progress bar of transformers while it saves."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _settings(config: PretrainConfig) -> dict[str, Json]:
    """Return the settings that must not change when a run resumes."""
    return {name: jsonable(getattr(config, name)) for name in settings_in_key(PretrainConfig)}


def _default_settings() -> dict[str, Json]:
    """Return the defaults, for runs that were started before a field existed."""
    in_key = settings_in_key(PretrainConfig)
    return {one.name: jsonable(one.default) for one in fields(PretrainConfig) if one.name in in_key}


log = logging.getLogger(__name__)

_LINE_EVERY_SECONDS: Final = 30.0


def line(*, step: int, n_steps: int, loss: float, nucleotides_per_second: float, seconds_left: float) -> str:
    """Return the line of the log for a step."""
    return (
        f"step {step} of {n_steps:,}: loss {loss:.4f}, {nucleotides_per_second:,.0f} nucleotides/s, "
        f"{clock(seconds_left)} left"
    )


def clock(seconds: float) -> str:
    """Format a duration as hours, minutes and seconds.

    >>> clock(75.4)
    '0:01:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Progress:
    """A bar on a terminal; otherwise a line of the log now and then.

    Args:
        n_steps: Steps of the whole training.
        nucleotides: Nucleotides that a step reads.
        shown: False on all processes but the first.
    """

    def __init__(self, *, n_steps: int, nucleotides: int, shown: bool) -> None:
        self._n_steps, self._nucleotides, self._shown = n_steps, nucleotides, shown
        self._on_terminal = shown and sys.stderr.isatty() and shows_progress()
        self._logged_at = time.monotonic()
        self.start(0, seconds=0.0)

    def __enter__(self) -> Progress:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=self._n_steps, unit="step", disable=not self._on_terminal, dynamic_ncols=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def start(self, step: int, *, seconds: float) -> None:
        """Start from a step, which was reached after some seconds of training."""
        self._first, self._first_seconds = step, seconds

    def at(self, step: int, loss: float, *, seconds: float) -> None:
        """Show that a step is done.

        Args:
            step: How many steps are done.
            loss: Mean loss of the last steps.
            seconds: Seconds of training until now, without validations and checkpoints.
        """
        if not self._shown:
            return
        speed = (step - self._first) / max(seconds - self._first_seconds, 1e-9)  # steps per second
        now = time.monotonic()
        if self._on_terminal:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {speed * self._nucleotides:,.0f} nt/s", refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._logged_at >= _LINE_EVERY_SECONDS:
            self._logged_at = now
            log.info(
                line(
                    step=step,
                    n_steps=self._n_steps,
                    loss=loss,
                    nucleotides_per_second=speed * self._nucleotides,
                    seconds_left=(self._n_steps - step) / max(speed, 1e-9),
                )
            )

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._on_terminal:
            self._bar.write(text, file=sys.stderr)
        elif self._shown:
            log.info(text)
