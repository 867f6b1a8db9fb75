"""Inputs that no user means to give: one line, and no waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bend_hf
from bend_hf.cli._main import main
from tests.tiny import write_data


class Waits(BaseException):
    """The command waits for a pipe."""


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    def waits(*_: object) -> None:
        raise Waits

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", ["variant_effects_disease"], n=4)
    for name in ("a.vcf", "a.bed", "a.fa", "a.toml", "a.json", "a.parquet", "a.py", "model/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000 + "]" * 50_000)
    return tmp_path


FILES = "--genome data/genomes/genome.fa --out out"
COMMANDS = {
    f"variants a.vcf --model onehot {FILES}": "a.vcf",
    f"variants a.bed --model onehot {FILES}": "a.bed",
    "variants data/variant_effects/variant_effects_disease.bed --model onehot --genome a.fa --out out": "a.fa",
    "train --config a.toml": "a.toml",
    "train --config deep.toml": "deep.toml cannot be read as TOML",
    f"train --bed a.bed --model onehot {FILES}": "a.bed does not exist",
    f"train --bed data/variant_effects/variant_effects_disease.bed --model model {FILES}": "config.json",
    f"train --bed data/variant_effects/variant_effects_disease.bed --model a.py {FILES}": "a.py",
    "report a.json --out report": "a.json does not exist",
    "report . --out report": "no result record",
    "card a.json --out card": "a.json does not exist",
    "compare a.parquet data/a.parquet": "a.parquet",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_or_deep_nesting_as_an_input_is_one_line(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(command.split()) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert COMMANDS[command] in line


def test_no_module_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    """As the program ``bend-hf`` starts: Python puts the folder of that program on its path, and no other."""
    data, here, programs = write_data(tmp_path / "data", ["gene_finding"], n=12), tmp_path / "here", tmp_path / "bin"
    here.mkdir()
    programs.mkdir()
    for name in {name.partition(".")[0] for name in sys.modules} | {"sitecustomize", "usercustomize", "bend_hf"}:
        if name.isidentifier():
            (here / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write(__name__ + ' ')")
    (programs / "bend-hf").write_text("import sys\nfrom bend_hf.cli._main import main\nsys.exit(main())\n")
    argv = ["train", "gene_finding", "--data", str(data), "--model", "onehot", "--epochs", "1", "--out", "out"]
    done = subprocess.run(
        [sys.executable, str(programs / "bend-hf"), *argv],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(Path(bend_hf.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
    assert done.returncode == 0, done.stderr
    assert list((here / "out").glob("gene_finding__onehot__*.json"))


SIGNS = "\x1b[31m\u202e\x07"
VCF = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
# The contig of the genome, the file, its text, and whether its variants can be scored.
STEERED = {
    "contig": (f"c{SIGNS}", "a.bed", f"chromosome\tstart\tend\tref\talt\tlabel\nc{SIGNS}\t8\t9\tA\tC\t1\n", True),
    "comma": ('c,"1"', "a.bed", 'chromosome\tstart\tend\tref\talt\tlabel\nc,"1"\t8\t9\tA\tC\t1\n', True),
    "unknown contig": ("chr1", "a.vcf", f"{VCF}c{SIGNS}\t9\t.\tA\tC\t.\t.\tlabel=1\n", False),
    "INFO": ("chr1", "a.vcf", f"{VCF}chr1\t9\t.\tA\tC\t.\t.\tlabel={SIGNS}\n", False),
    "INFO key": ("chr1", "a.vcf", f"{VCF}chr1\t9\t.\tA\tC\t.\t.\tlabel=1;LABEL=0;{SIGNS}=1\n", True),
    "column": ("chr1", "a.bed", f"chromosome\tstart\tend\tref\talt\tl{SIGNS}\nchr1\t8\t9\tA\tC\t1\n", True),
    "label": ("chr1", "a.bed", f"chromosome\tstart\tend\tref\talt\tlabel\nchr1\t8\t9\tA\tC\t{SIGNS}\n", False),
}


@pytest.mark.parametrize("kind", STEERED)
def test_names_within_files_steer_no_terminal(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contig, name, text, scored = STEERED[kind]
    monkeypatch.chdir(tmp_path)
    Path("g.fa").write_text(f">{contig}\n{'ACGT' * 400}\n")
    Path(name).write_text(text)
    status = main(["variants", name, "--genome", "g.fa", "--model", "onehot", "--out", "out", "--csv"])
    shown = "".join(capsys.readouterr())
    assert (status == 0) == scored, shown
    texts = [path for path in Path("out").rglob("*") if path.suffix in (".csv", ".json", ".md", ".html", ".svg")]
    assert bool(texts) == scored
    for content in (shown, *(path.read_text() for path in texts)):
        assert not set(SIGNS) - set("[31m") & set(content)
