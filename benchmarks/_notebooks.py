"""Run the notebooks in examples/ and keep what their cells show.

    python -m benchmarks._notebooks                               # run all, and write the outputs into the files
    python -m benchmarks._notebooks --limit 20 --out FOLDER NAME  # try one with few items, and write a copy

Cells run in one process, in an empty folder. Like Jupyter, a cell shows what it prints and the value of its last line:
as HTML or a PNG image if the value has one, and as text. ``tests/e2e/test_notebooks.py`` runs them with few items.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final, TypeAlias

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLES: Final = ROOT / "examples"
LIMIT: Final = re.compile(r"^LIMIT = .*$", re.MULTILINE)
Notebook: TypeAlias = dict[str, Any]  # the JSON of an .ipynb file


def notebooks() -> list[Path]:
    """Return the notebooks, in the order in which they are read."""
    return [
        EXAMPLES / f"{name}.ipynb" for name in ("evaluate_your_model", "unsupervised_variant_effects", "compare_models")
    ]


def code_of(notebook: Notebook) -> list[str]:
    """Return the text of the code cells."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(notebook: Notebook, *, limit: int | None = None) -> Notebook:
    """Run the code cells in the working directory and return the notebook with their outputs.

    Args:
        notebook: The notebook; left as it is.
        limit: Replaces the number in the line ``LIMIT = ...``; None keeps it.
    """
    done: Notebook = json.loads(json.dumps(notebook))
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in done["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        code = "".join(cell["source"])
        cell["execution_count"] = count
        cell["outputs"] = _run(code if limit is None else LIMIT.sub(f"LIMIT = {limit}", code), names, count)
    return done


def _run(code: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run the code of a cell; return its outputs."""
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {count}>", "exec"), names)  # noqa: S102 the notebooks are our own
        if isinstance(last, ast.Expr) and not code.rstrip().endswith(";"):
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
    if value is not None:
        result = {"data": _shown(value), "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs


def _shown(value: object) -> dict[str, Any]:
    """Return the forms in which a notebook shows a value, by MIME type."""
    data: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "_repr_html_") and (text := value._repr_html_()):
        data["text/html"] = _lines(text)
    if hasattr(value, "savefig"):  # a figure of matplotlib
        file = io.BytesIO()
        value.savefig(file, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        data["image/png"] = base64.b64encode(file.getvalue()).decode() + "\n"
        data["text/plain"] = [f"<Figure with {len(value.axes)} axes>"]
    return data


def _lines(text: str) -> list[str]:
    return text.rstrip("\n").splitlines(keepends=True)


def main(argv: list[str] | None = None) -> None:
    """Run notebooks, each in an empty folder, without a network and with empty caches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks to run; default: all")
    parser.add_argument("--limit", type=int, help="use only this many items of each split")
    parser.add_argument("--out", type=Path, help="folder to write to; default: examples")
    parsed = parser.parse_args(argv)
    if parsed.limit is not None and parsed.out is None:
        parser.error("--limit needs --out, because the outputs in examples/ are those of all items")
    out = (parsed.out or EXAMPLES).resolve()
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    here = Path.cwd()
    for path in notebooks():
        if parsed.names and path.stem not in parsed.names:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            done = execute(json.loads(path.read_text(encoding="utf-8")), limit=parsed.limit)
            os.chdir(here)
        text = json.dumps(done, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        (out / path.name).write_text(text.replace(folder, "."), encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as caches:
        # Read when the libraries are imported, which happens in the cells.
        os.environ.update(
            HF_HOME=f"{caches}/hf",
            BEND_HF_CACHE=f"{caches}/bend",
            HF_HUB_OFFLINE="1",
            MPLBACKEND="Agg",
            TQDM_DISABLE="1",
        )
        main()
