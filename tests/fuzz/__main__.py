"""Fuzz the readers, one after the other, each in a process of its own.

    python -m tests.fuzz --seconds 600
    python -m tests.fuzz --seconds 60 --target bed

With atheris, coverage guides the mutations (libFuzzer). Without it, whole files are mutated at random, which finds
less; the first line says which of the two runs. A file that breaks a reader is copied to ``tests/fuzz/found/TARGET/``.
The exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

# Only what parses is instrumented: atheris slows down the imports of everything else.
INSTRUMENTED = ("bend_hf.data", "bend_hf.config", "bend_hf.evaluation.record", "bend_hf.files", "tomllib", "json")
LONGEST_BYTES = 16_384
TIMEOUT_S = 20
ODD = (b"-1", b"99999999999999999999", b"\0", b"\t", b"\n", b'"', b"nan", b"\xff\xfe", b"[" * 3000, b"1e999")


def main() -> int:
    """Fuzz what the flags name."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=600.0, help="seconds in all")
    parser.add_argument("--target", help="one reader; default: all")
    parser.add_argument("--results", type=Path, help="JSON file to write the counts to")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)  # in the process of one reader
    parsed = parser.parse_args()
    with_atheris = importlib.util.find_spec("atheris") is not None
    if parsed.run:
        fuzz = _with_atheris if with_atheris else _at_random
        return fuzz(parsed.target, parsed.seconds)
    from tests.fuzz.targets import FOUND, TARGETS

    names = [parsed.target] if parsed.target else list(TARGETS)
    print("atheris guides the mutations" if with_atheris else "atheris is not installed: files are mutated at random")
    n_found, counts = 0, dict[str, dict[str, object]]()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.fuzz", "--run", "--target", name]
            command += ["--seconds", str(parsed.seconds / len(names))]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(folder))
            broken = sorted(path for path in Path(folder).glob("*-*") if path.is_file())
            for path in broken:
                kept = FOUND / name / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(path.read_bytes())
                print(f"{name}: {kept}")
        n_runs = int((re.findall(r"(?:#|Done )(\d+)", done.stderr) or ["0"])[-1])
        seconds = round(parsed.seconds / len(names))
        counts[name] = {"files": n_runs, "seconds": seconds, "broken": len(broken), "guided": with_atheris}
        print(f"{name}: {n_runs:,} files in {seconds} s", flush=True)
        if broken or done.returncode:
            n_found += 1
            print(done.stderr[-3000:], file=sys.stderr, flush=True)
    if parsed.results:
        parsed.results.write_text(json.dumps(counts, indent=1) + "\n")
    return int(n_found > 0)


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "BEND_HF_FUZZ": folder, "BEND_HF_CACHE": f"{folder}/cache", "OMP_NUM_THREADS": "1"}


def _with_atheris(name: str, seconds: float) -> int:
    """Run libFuzzer on one reader; does not return."""
    import atheris

    folder = Path(os.environ["BEND_HF_FUZZ"])
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.targets import TARGETS, read
    corpus = folder / "corpus"
    corpus.mkdir()
    for seed, content in TARGETS[name].seeds().items():
        (corpus / seed).write_bytes(content)
    flags = [f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST_BYTES}", f"-timeout={TIMEOUT_S}"]
    flags += ["-rss_limit_mb=4096", f"-artifact_prefix={folder}/", str(corpus)]
    atheris.Setup([sys.argv[0], *flags], lambda content: read(name, content))
    atheris.Fuzz()
    return 0


def _at_random(name: str, seconds: float) -> int:
    """Mutate whole files without guidance."""
    from tests.fuzz.targets import TARGETS, clean_up, read

    draw, seeds, n_runs = random.Random(0), list(TARGETS[name].seeds().values()), 0
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            content, n_runs = mutated(draw.choice(seeds), draw), n_runs + 1
            try:
                read(name, content)
            except Exception:
                (Path(os.environ["BEND_HF_FUZZ"]) / f"crash-{n_runs}").write_bytes(content)
                traceback.print_exc()
                return 1
    finally:
        clean_up()
        print(f"Done {n_runs}", file=sys.stderr)
    return 0


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Change a file in one to four places: bits, bytes, numbers, cuts, copies and lines.

    >>> mutated(b"chr1", random.Random(0)) != mutated(b"chr1", random.Random(1))
    True
    """
    made = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(made) + 1)
        end = min(len(made), at + draw.choice((1, 1, 2, 8, 64)))
        way = draw.randrange(6)
        if way == 0 and at < len(made):
            made[at] ^= 1 << draw.randrange(8)
        elif way == 1:
            made[at:end] = draw.randbytes(end - at)
        elif way == 2:
            made[at:end] = b""
        elif way == 3:
            made[at:at] = made[at:end] * draw.choice((1, 2, 50))
        elif way == 4:
            made[at:end] = draw.choice(ODD)
        else:
            made = made[:at]
    return bytes(made[:LONGEST_BYTES])


if __name__ == "__main__":
    sys.exit(main())
