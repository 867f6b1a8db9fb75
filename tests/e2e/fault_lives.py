"""Let every command fail at its n-th change to files, for all n or some, and then repeat it; run by the fault tests.

    python -m tests.e2e.fault_lives FOLDER COMMAND,COMMAND EVERY

Every life is a fork of one process that has imported everything and computed nothing. Prints a JSON object with one
entry per command: the number of changes that it makes, the number of lives, and what was wrong with any of them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import datasets
from safetensors import SafetensorError
from safetensors.torch import load

from bend_hf.cli._main import main
from bend_hf.runs.leftovers import find_leftovers
from tests.faults import Change, Life, live
from tests.killing import import_all
from tests.tiny import write_bed, write_data

WORDS: Final = """
import numpy as np

def embed(sequences):
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""
GENES: Final = ("--task", "gene_finding", "--data", "data")
TRAIN: Final = (*GENES, "--model", "onehot", "--epochs", "1", "--batch-size", "4")
COMMANDS: Final = {
    "build": ("build", "gene_finding", "--data", "data", "--out", "out"),
    "embed": ("embed", *GENES, "--model", "words.py", "--cache", "out"),
    "train": ("train", *TRAIN, "--out", "out", "--checkpoint-every", "1"),
    "run": ("run", *TRAIN, "--out", "out"),
    "variants": (
        *("variants", "mine.bed", "--genome", "data/genomes/genome.fa", "--model", "words.py"),
        *("--out", "out", "--csv"),
    ),
    "pretrain": (
        *("pretrain", "--model", "convnet", "--set", "hidden_size=8", "n_layers=2", "--genome"),
        *("data/genomes/genome.fa", "--out", "out", "--held-out", "chr2:100000-110000", "--no-tables"),
        *("--steps", "5", "--batch-windows", "6", "--window-bp", "24", "--validation-windows", "20"),
        *("--save-every", "2", "--validate-every", "2", "--threads", "1"),
    ),
    "report": ("report", "results", "--out", "out"),
    "card": ("card", "results", "--out", "out"),
}
# Files that say when and how fast they were made.
_VOLATILE: Final = (
    *("created_at", "cost", "seconds", "trained_seconds", "resumed_at_step", "resumed_at", "peak_memory_bytes"),
    *("input_wait_share", "nucleotides_per_second", "wall_seconds"),
    *("changed_ns", "state"),  # of a shard: when its file changed
)


def command(argv: tuple[str, ...]) -> Callable[[], int]:
    """The command, with the caches that belong to its life."""

    def act() -> int:
        return main(list(argv))

    return act


def prepare(folder: Path) -> None:
    """Write the inputs of all commands, and what ``report`` and ``card`` read."""
    write_data(folder / "data", ["gene_finding"], n=12)
    (folder / "words.py").write_text(WORDS)
    letters = (folder / "data/genomes/genome.fa").read_text().split(">")[1].split("\n", 1)[1].replace("\n", "")
    rows = []
    for number in range(12):
        at = 1000 + 700 * number
        rows.append(("chr1", at, at + 1, letters[at], "ACGT"[("ACGT".index(letters[at]) + 1) % 4], number % 2))
    write_bed(folder / "mine.bed", ("chromosome", "start", "end", "ref", "alt", "label"), rows)
    done = live(command(("train", *TRAIN, "--out", "results")), below=folder)
    if done.status:
        raise SystemExit(done.text)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each file that is not in progress, without times, by its name without time."""
    unfinished = {item.path for item in find_leftovers([folder], settled_s=-1)}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not unfinished & {path, *path.parents}:
            name = re.sub(r"\d{8}T\d{6}(-\d+)?", "TIME", str(path.relative_to(folder)))
            found[name] = _without_times(path)
    return found


def _without_times(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix in (".json", ".jsonl", ".md", ".csv", ".html", ".yaml", ".tsv"):
        text = re.sub(r"\d{8}T\d{6}(-\d+)?", "TIME", raw.decode())
        if path.suffix == ".json":
            text = json.dumps(_drop(json.loads(text)), sort_keys=True)
        if path.suffix == ".csv" and "seconds" in text.splitlines()[0]:  # the last column
            text = "\n".join(line.rpartition(",")[0] for line in text.splitlines())
        return text.encode()
    return raw


def _where(now: bytes | None, whole: bytes | None) -> str:
    """Where two files differ."""
    if now is None or whole is None:
        return " is missing" if now is None else " is new"
    if not (now.startswith(b"{") and whole.startswith(b"{")):
        return f" ({len(now)} and {len(whole)} bytes)"
    one, other = json.loads(now), json.loads(whole)
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return "".join(f" {key}: {str(one.get(key))[:300]} and {str(other.get(key))[:300]};" for key in keys)


def _is_earlier(name: str, made: bytes) -> bool:
    """Whether a file is whole, of an earlier step of a pretraining, which keeps its best model so far."""
    if name != "model.safetensors" and not name.startswith("training/"):
        return False
    try:
        return not name.endswith(".safetensors") or len(load(made)) > 0  # tables and state grow
    except SafetensorError:
        return False


def _drop(value: object) -> object:
    if isinstance(value, dict):
        drop = (*_VOLATILE, "sha256") if "created_at" in value else _VOLATILE  # a record's sum over itself
        return {key: _drop(one) for key, one in value.items() if key not in drop}
    return [_drop(one) for one in value] if isinstance(value, list) else value


class Sweep:
    """All lives of one command.

    Args:
        folder: Where ``prepare`` wrote.
        name: Which command.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.act = folder, name, command(COMMANDS[name])
        self.wrong: list[str] = []
        self.whole: dict[str, bytes] = {}

    def clear(self) -> None:
        """Remove what earlier lives wrote."""
        for name in ("out", "home", "data/genomes/genome.fa.fai"):
            place = self.folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)

    def start(self) -> list[Change]:
        """Run the command undisturbed; returns its changes."""
        self.clear()
        life = live(self.act, below=self.folder)
        if life.status:
            raise SystemExit(f"{self.name} fails undisturbed: {life.text}")
        self.whole = content(self.folder / "out")
        self.clear()
        again = live(self.act, below=self.folder)
        if again.status or content(self.folder / "out") != self.whole:
            raise SystemExit(f"{self.name} differs undisturbed: {self._different()}")
        return life.changes

    def _different(self) -> list[str]:
        now = content(self.folder / "out")
        names = sorted(name for name in now.keys() | self.whole.keys() if now.get(name) != self.whole.get(name))
        return [f"{name}{_where(now.get(name), self.whole.get(name))}" for name in names]

    def fail(self, number: int, error: int, *, stays: bool) -> None:
        """Let one change fail, look at what is left, and repeat the command."""
        self.clear()
        life = live(self.act, below=self.folder, fails=number, error=error, stays=stays)
        if len(life.changes) < number:
            return
        change = life.changes[number - 1]
        place = f"{self.name}: {change.kind} {number} of {change.path.removeprefix(f'{self.folder}/')}: "
        place += f"{errno.errorcode[error]}{' from there on' if stays else ''}: "
        self.wrong += [place + text for text in self._judge(life)]
        left = content(self.folder / "out")
        half = sorted(
            name for name, made in left.items() if self.whole.get(name) != made and not _is_earlier(name, made)
        )
        if half:
            self.wrong.append(f"{place}left half written: {half}")
        again = live(self.act, below=self.folder)
        if again.status:
            self.wrong.append(f"{place}then ended with {again.status}: {again.text[-600:]}")
        elif self._different():
            self.wrong.append(f"{place}then differs: {self._different()}")

    def _judge(self, life: Life) -> list[str]:
        """What is wrong with the end of a life that had a fault."""
        if life.status == 0:
            return [f"ended well without its files: {self._different()}"] if self._different() else []
        if "Traceback" in life.text or life.status != 1:
            return [f"ended with {life.status}: {life.text[-1500:]}"]
        mark = "^gene_finding / .* failed: " if self.name == "run" else "^error: "  # a grid goes on with other cells
        errors = [line for line in life.text.splitlines() if re.match(mark, line)]
        if len(errors) != 1:
            return [f"gave {len(errors)} lines of error: {life.text[-600:]}"]
        says = str(self.folder) in errors[0] or re.search(r"\b(out|home|data|results)\b", errors[0])
        advises = re.search(r"free (some )?space|free some|give another|kept|again|repeat", errors[0], re.IGNORECASE)
        return [] if says and advises else [f"says too little: {errors[0]}"]


def ends_of_runs(changes: list[Change]) -> list[int]:
    """Numbers of the first and the last change of each kind to each file; in between they are alike."""
    ends: dict[tuple[str, str], tuple[int, int]] = {}
    for number, change in enumerate(changes, 1):
        name = change.kind, re.sub(r"\d{5,}(-[0-9a-f]{8})?|[0-9a-f]{16,}|tmp\w+", "#", change.path)
        ends[name] = (ends.get(name, (number, number))[0], number)
    return sorted({number for pair in ends.values() for number in pair})


def sweep(folder: Path, name: str, every: int) -> dict[str, object]:
    """Fail a command at every so-manieth change, as on a disk that is full and as on one that fails once, in turn.

    Args:
        folder: Where ``prepare`` wrote.
        name: Which command.
        every: 1 for all changes, both ways.
    """
    one = Sweep(folder, name)
    changes = one.start()
    numbers = ends_of_runs(changes)
    ways = [partial(one.fail, error=errno.ENOSPC, stays=True), partial(one.fail, error=errno.EIO, stays=False)]
    lives = 0
    for place, number in enumerate(numbers):
        for turn, way in enumerate(ways):
            if every == 1 or (place % every == every // 2 and place // every % 2 == turn):
                way(number)
                lives += 1
    return {"changes": len(changes), "tried": len(numbers), "lives": lives, "wrong": one.wrong}


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    home = folder / "home"
    os.environ.update(BEND_HF_CACHE=str(home / "bend_hf"), TMPDIR=str(folder / "home"))
    datasets.config.HF_DATASETS_CACHE = home / "datasets"
    import_all()
    os.chdir(folder)
    if not (folder / "results").exists():
        prepare(folder)
    print(json.dumps({name: sweep(folder, name, int(sys.argv[3])) for name in sys.argv[2].split(",")}, indent=1))
