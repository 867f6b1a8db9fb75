"""Let every command fail at its n-th change to files, for all n or some, and then repeat it; run by the fault tests.

    HF_HOME=FOLDER/home/hf python -m tests.e2e.fault_lives FOLDER COMMAND,COMMAND EVERY [RESULTS]

Every life is a fork of one process that has imported everything and computed nothing, so that it costs what the command
itself computes. Prints a JSON object with one entry per command (``all`` for all): the number of changes that it makes,
of those that failed, of lives with a fault, and what was wrong with any of them. In ``RESULTS``, a JSON file, the
entries of these commands are replaced; ``make faults`` writes ``benchmarks/results/faults.json`` in this way.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import importlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import datasets
from safetensors import SafetensorError
from safetensors.torch import load

from bend_hf.cli._main import main
from bend_hf.embedders import MODELS
from bend_hf.runs.leftovers import find_leftovers
from tests.faults import Change, Life, live
from tests.killing import import_all
from tests.tiny import write_bed, write_data

WORDS: Final = """
import numpy as np

def embed(sequences):
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
"""
SBATCH: Final = """#!/bin/sh
echo "Submitted batch job $(grep -o 'job-name=.*' "$1" | cksum | cut -d ' ' -f 1)"  # equal stages are equal jobs
"""
GENES: Final = ("--task", "gene_finding", "--data", "data")
MODEL: Final = ("--model", "dnabert6", "--checkpoint", "model", "--random-init")
TRAIN: Final = (*GENES, "--model", "onehot", "--epochs", "1", "--batch-size", "4")
REGIONS: Final = ("--bed", "regions.bed", "--genome", "data/genomes/genome.fa")
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
    "layers": ("layers", *GENES, *MODEL, "--layers", "every-2", "--head", "linear", "--epochs", "1", "--out", "out"),
    "shots": ("train", *TRAIN, "--shots", "1,all", "--out", "out"),
    "predict": ("predict", "--head", "results", *REGIONS, "--out", "out/scores.parquet"),
    "predict-bed": ("predict", "--head", "results", *REGIONS, "--out", "out/classes.bed"),
    "predict-bigwig": ("predict", "--head", "results", *REGIONS, "--label", "cds+", "--out", "out/cds.bw"),
    "submit": ("submit", "run", *TRAIN, "--out", "results", "--cache", "cache", "--jobs", "out"),
    "controls": ("controls", *GENES, "--epochs", "1", "--seeds", "0", "--out", "out"),
    "audit": ("audit", "gene_finding", "--data", "data", "--out", "out"),
    "export": ("cache", "export", "gene_finding", "--cache", "cache", "--to", "out"),
}
_WRITTEN: Final = ("out", "home", "data/genomes/genome.fa.fai")  # where commands write; home holds all caches
_OF_SUBMITIT: Final = ".submission_file_"  # scripts before they have a job
# Files that say when and how fast they were made.
_VOLATILE: Final = (
    *(
        "created",
        "created_at",
        "cost",
        "seconds",
        "trained_seconds",
        "resumed_at_step",
        "resumed_at",
        "peak_memory_bytes",
    ),
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
    regions = [("chr1", at, at + 300) for at in range(2000, 8000, 1000)]
    write_bed(folder / "regions.bed", ("chromosome", "start", "end"), regions)
    tiny = MODELS.get("dnabert6").tiny
    assert tiny is not None
    tiny().write(folder / "model")
    (folder / "programs").mkdir()
    for name in ("sbatch", "squeue", "srun", "scontrol"):
        (folder / "programs" / name).write_text(SBATCH)
        (folder / "programs" / name).chmod(0o755)
    train, embed = ("train", *TRAIN, "--out", "results"), ("embed", *GENES, "--model", "words.py", "--cache", "cache")
    for argv in (train, embed):
        done = live(command(argv), below=folder)
        if done.status:
            raise SystemExit(done.text)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of each file that is not in progress, without times, by its name without time."""
    unfinished = {item.path for item in find_leftovers([folder], settled_s=-1) if item.kept_because is None}
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not unfinished & {path, *path.parents} and not path.name.startswith(_OF_SUBMITIT):
            name = re.sub(r"\d{8}T\d{6}(-\d+)?", "TIME", str(path.relative_to(folder)))
            found.append((name, _without_times(path)))
    # Records of one command may have one name but for their times: they are told apart by their content.
    return {f"{number}:{name}" if number else name: made for number, name, made in _numbered(sorted(found))}


def _numbered(pairs: list[tuple[str, bytes]]) -> Iterator[tuple[int, str, bytes]]:
    for _, equal in itertools.groupby(pairs, key=lambda pair: pair[0]):
        yield from ((number, *pair) for number, pair in enumerate(equal))


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


def _state(folder: Path) -> str:
    """Hash all that a command would find where it writes, apart from times and the numbers of processes."""
    digest = hashlib.sha256()
    for path in sorted(path for name in _WRITTEN for path in ((folder / name), *(folder / name).rglob("*"))):
        digest.update(f"\n{_without_numbers(str(path.relative_to(folder)))}\n".encode())
        if path.is_file() and path.suffix != ".lock":
            try:
                digest.update(_without_times(path))
            except ValueError:  # cut
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _without_numbers(path: str) -> str:
    return re.sub(r"\d{5,}(-[0-9a-f]{8})?|[0-9a-f]{16,}|tmp\w+", "#", path)


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
    """Whether a file is whole, of an earlier step of a pretraining or of a submission."""
    if name == "submission.json":  # names the jobs of each stage so far
        return "jobs" in json.loads(made)
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
        self.repeated: set[str] = set()

    def clear(self) -> None:
        """Remove what earlier lives wrote."""
        for name in _WRITTEN:
            place = self.folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)

    def start(self) -> list[Change]:
        """Run the command undisturbed; returns its changes."""
        self.clear()
        life = self._warm()
        if life.status:
            raise SystemExit(f"{self.name} fails undisturbed: {life.text}")
        self.whole = content(self.folder / "out")
        self.clear()
        again = live(self.act, below=self.folder)
        if again.status or content(self.folder / "out") != self.whole:
            raise SystemExit(f"{self.name} differs undisturbed: {self._different()}")
        return life.changes

    def _warm(self) -> Life:
        """Live undisturbed, and import here what that life imported, which the next ones then find."""
        with tempfile.NamedTemporaryFile("r", dir="/tmp") as names:

            def act() -> int:
                status = self.act()
                Path(names.name).write_text("\n".join(sys.modules))
                return status

            life = live(act, below=self.folder)
            for name in names.read().split():
                if name not in sys.modules:
                    with contextlib.suppress(ImportError):  # a file of the user, or a module made in memory
                        importlib.import_module(name)
        gc.collect()
        gc.freeze()  # a collection in a child would copy all pages of this process
        return life

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
        known = len(self.wrong)
        self.wrong += [place + text for text in self._judge(life)]
        left = content(self.folder / "out")
        whole = {(name.partition(":")[2] or name, made) for name, made in self.whole.items()}
        half = sorted(
            name
            for name, made in left.items()
            if (name.partition(":")[2] or name, made) not in whole and not _is_earlier(name, made)
        )
        if half:
            self.wrong.append(f"{place}left half written: {half}")
        if self.name != "submit" or life.status:  # jobs that were submitted are not submitted twice
            self.wrong += [place + text for text in self._repeat()]
        for text in self.wrong[known:]:
            print(text, file=sys.stderr, flush=True)

    def _repeat(self) -> list[str]:
        """Repeat the command, once for each state in which faults leave its folders; returns what is wrong then."""
        state = _state(self.folder)
        if state in self.repeated:
            return []
        again = live(self.act, below=self.folder)
        if again.status:
            return [f"then ended with {again.status}: {again.text[-600:]}"]
        if self._different():
            return [f"then differs: {self._different()}"]
        self.repeated.add(state)
        return []

    def _judge(self, life: Life) -> list[str]:
        """What is wrong with the end of a life that had a fault."""
        if life.status == 0:
            return [f"ended well without its files: {self._different()}"] if self._different() else []
        if "Timeout (" in life.text:
            return [f"did not end: {life.text[-8000:]}"]
        if "Traceback" in life.text or life.status != 1:
            return [f"ended with {life.status}: {life.text[-1500:]}"]
        errors = [line for line in life.text.splitlines() if line.startswith("error: ")]
        if self.name == "run":  # a grid that has begun goes on with other cells
            errors = [line for line in life.text.splitlines() if re.match("gene_finding / .* failed: ", line)] or errors
        if len(errors) != 1:
            return [f"gave {len(errors)} lines of error: {life.text[-600:]}"]
        says = str(self.folder) in errors[0] or re.search(r"\b(out|home|data|results)\b", errors[0])
        advises = re.search(r"free (some )?space|free some|give another|kept|again|repeat", errors[0], re.IGNORECASE)
        return [] if says and advises else [f"says too little: {errors[0]}"]


def ends_of_runs(changes: list[Change]) -> list[int]:
    """Numbers of the first and the last change of each kind to each file; in between they are alike."""
    ends: dict[tuple[str, str], tuple[int, int]] = {}
    for number, change in enumerate(changes, 1):
        name = change.kind, _without_numbers(change.path)
        ends[name] = (ends.get(name, (number, number))[0], number)
    return sorted({number for pair in ends.values() for number in pair})


def sweep(folder: Path, name: str, every: int) -> dict[str, object]:
    """Fail a command at its changes, as on a disk that is full and as on one that fails once.

    Args:
        folder: Where ``prepare`` wrote.
        name: Which command.
        every: Which part of the lives: 1 for all changes, both ways (alike changes to a file in turn, except the first
            and the last one), 2 for all changes in turn, and above that every so-manieth life.
    """
    one = Sweep(folder, name)
    changes = one.start()
    ends = ends_of_runs(changes)
    ways = [partial(one.fail, error=errno.ENOSPC, stays=True), partial(one.fail, error=errno.EIO, stays=False)]
    step = max(every // 2, 1)
    numbers = (ends if every > 2 else list(range(1, len(changes) + 1)))[step // 2 :: step]
    lives = 0
    for turn, number in enumerate(numbers):
        for way in ways if every == 1 and number in ends else [ways[turn % 2]]:
            way(number)
            lives += 1
    return {
        "every": every,
        "changes": len(changes),
        "tried": len(numbers),
        "lives": lives,
        "states": len(one.repeated),
        "wrong": one.wrong,
    }


def keep(found: dict[str, dict[str, object]], file: Path) -> None:
    """Replace the entries of some commands in a JSON file, in the order of the commands."""
    entries = (json.loads(file.read_text()) if file.exists() else {}) | found
    file.write_text(json.dumps({name: entries[name] for name in COMMANDS if name in entries}, indent=1) + "\n")


def _main() -> int:
    folder = Path(sys.argv[1]).resolve()
    home = folder / "home"
    programs = f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}"
    os.environ.update(BEND_HF_CACHE=str(home / "bend_hf"), TMPDIR=str(home), PATH=programs)
    datasets.config.HF_DATASETS_CACHE = home / "datasets"
    import_all()
    names = list(COMMANDS) if sys.argv[2] == "all" else sys.argv[2].split(",")
    files = [Path(name).resolve() for name in sys.argv[4:]]
    os.chdir(folder)
    if not (folder / "results").exists():
        prepare(folder)
    found: dict[str, dict[str, object]] = {}
    for name in names:
        found[name] = sweep(folder, name, int(sys.argv[3]))
        for file in files:
            keep(found, file)
    print(json.dumps(found, indent=1))
    return int(bool(files) and any(one["wrong"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(_main())
