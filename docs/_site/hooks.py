"""Hooks of MkDocs: pages that are made for the site, and links that work both in the repository and on it.

    make site

Pages in docs/ are taken as they are. README.md, CONTRIBUTING.md and others outside of docs/, the notebooks in
examples/, the flags of all commands and the reference are added here. Files that the site does not hold are named
without a link.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]

# Pages outside docs/, by their place in the repository.
TAKEN: Final = {
    "README.md": "getting_started.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bend_hf/sample/README.md": "sample.md",
    "bend_hf/pretrained/bend-mini/README.md": "bend_mini.md",
    "accelerate_configs/README.md": "launch_configurations.md",
}

# The reference: title, what the page is about, and public names by the place of their source.
REFERENCE: Final = {
    "evaluate": (
        "Evaluate",
        "What `bend_hf` itself exports to run models and look at the results.",
        (
            "bend_hf.publishing.notebook.evaluate",
            "bend_hf.publishing.notebook.Results",
            "bend_hf.config.RunConfig",
            "bend_hf.evaluation.uncertainty.comparison.compare",
            "bend_hf.evaluation.uncertainty.comparison.Comparison",
            "bend_hf.evaluation.record.ResultRecord",
            "bend_hf.evaluation.predictions.Predictions",
        ),
    ),
    "data": (
        "Data and tasks",
        "Tasks are declarations. Their data are opened as Hugging Face datasets.",
        (
            "bend_hf.data.dataset.load_task",
            "bend_hf.data.dataset.TaskData",
            "bend_hf.data.genome.Genome",
            "bend_hf.tasks._spec.TaskSpec",
            "bend_hf.tasks._spec.TrainingSpec",
            "bend_hf.tasks._spec.VariantSpec",
            "bend_hf.tasks._spec.Head",
            "bend_hf.tasks._spec.NamedSplits",
            "bend_hf.tasks._spec.Folds",
            *(
                f"bend_hf.tasks._labels.{name}"
                for name in ("NucleotideClasses", "BinClasses", "MultiLabel", "SequenceClass", "RealValues")
            ),
        ),
    ),
    "models": (
        "Models",
        "A model turns sequences into embeddings.",
        (
            "bend_hf.embedders.load_embedder",
            "bend_hf.embedders._embedder.Embedder",
            "bend_hf.embedders._embedder.TokenEmbeddings",
            "bend_hf.embedders._spec.ModelSpec",
            "bend_hf.embedders.user_model",
        ),
    ),
    "heads": (
        "Heads",
        "A head is trained on token embeddings.",
        (
            "bend_hf.training.load_head.load_head",
            "bend_hf.training.trained_head.TrainedHead",
            "bend_hf.training.heads._spec.HeadSpec",
            "bend_hf.training.heads._upsample.spread",
            "bend_hf.training.heads._upsample.pool",
            "bend_hf.training.heads.cnn",
            "bend_hf.training.heads.linear",
        ),
    ),
    "metrics": (
        "Metrics and intervals",
        "Metrics are `evaluate` modules; intervals are taken over clusters of items.",
        (
            "bend_hf.evaluation.metrics",
            "bend_hf.evaluation.uncertainty.intervals",
            "bend_hf.evaluation.uncertainty.clusters",
        ),
    ),
    "variants": (
        "Variants",
        "Zero-shot scores of variants.",
        (
            "bend_hf.runs.variant_file.score_file",
            "bend_hf.runs.variant_file.ScoredFile",
            "bend_hf.variants.config.VariantRun",
            "bend_hf.variants.score.score_variants",
            "bend_hf.variants.scores",
        ),
    ),
}
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:|data:)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE: Final = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages and images that are not in docs/."""
    for place, name in TAKEN.items():
        files.append(File.generated(config, name, content=(ROOT / place).read_text(encoding="utf-8")))
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        name = f"tutorials/{notebook.stem}"
        files.append(File.generated(config, f"{name}.md", content=notebook_page(content, notebook.name)))
        files.append(File.generated(config, f"{name}.ipynb", abs_src_path=str(notebook)))
    for image in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"images/{image.name}", abs_src_path=str(image)))
    for key, (title, text, names) in REFERENCE.items():
        blocks = "\n\n".join(f"::: {name}" for name in names)
        files.append(File.generated(config, f"reference/{key}.md", content=f"# {title}\n\n{text}\n\n{blocks}\n"))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page lead to pages of the site."""
    source = page.file.src_uri
    place = next((place for place, name in TAKEN.items() if name == source), f"docs/{source}")
    return relink(markdown, place, source)


def relink(markdown: str, place: str, source: str) -> str:
    """Rewrite links between files of the repository as links between pages of the site.

    Args:
        markdown: Text of the page.
        place: Path of the page in the repository.
        source: Path of the page in the site's sources.
    """

    def found(link: re.Match[str]) -> str:
        image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        name = page_of(path)
        if name is None:
            return link[0] if path.startswith("docs/") else text
        if text == posixpath.basename(target) and not image:
            text = title_of(ROOT / path)
        return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(source) or '.')}{anchor})"

    kept: list[str] = []
    end = 0
    for fence in _FENCE.finditer(markdown):
        kept += [_LINK.sub(found, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*kept, _LINK.sub(found, markdown[end:])])


def page_of(path: str) -> str | None:
    """Return the page or image of the site that shows a file of the repository; None if there is no such page."""
    if path in TAKEN:
        return TAKEN[path]
    folder, name = posixpath.split(path)
    if folder == "examples" and name.endswith(".ipynb"):
        return f"tutorials/{name.removesuffix('.ipynb')}.md"
    if folder == "benchmarks/results" and name.endswith(".png"):
        return f"images/{name}"
    if path.startswith("docs/") and path.endswith(".md"):
        return path.removeprefix("docs/")
    return None


def title_of(page: Path) -> str:
    """Return the first heading of a page, which its name stands for in a link.

    >>> title_of(ROOT / "docs" / "protocols.md")
    'Protocols'
    """
    (title,) = re.findall(r"^# (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)[:1] or [page.stem]
    return str(title)


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """Write a notebook as Markdown, with the outputs that it holds."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            parts += [f"```python\n{text}\n```", *(_output(output) for output in cell["outputs"])]
        else:
            parts.append(text)
    parts.insert(1, f"[Download this notebook]({name}){{ .notebook download }}")
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f'<div class="output" markdown>\n```text\n{"".join(output["text"])}\n```\n</div>'
    data = output["data"]
    if "image/png" in data:
        encoded = "".join(data["image/png"]).strip()
        return f'<div class="output"><img alt="figure" src="data:image/png;base64,{encoded}"></div>'
    if "text/html" in data:
        html = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        flat = re.sub(r"\s*\n\s*", " ", html)
        return f'<div class="output table">{flat}</div>'
    return f'<div class="output" markdown>\n```text\n{"".join(data["text/plain"])}\n```\n</div>'


def commands_page() -> str:
    """Write the help of every command."""
    os.environ["COLUMNS"] = "100"
    from bend_hf.cli._main import command_parser

    (commands,) = (one for one in command_parser()._actions if isinstance(one, argparse._SubParsersAction))
    sections = [
        f"## bend-hf {name}\n\n```text\n{one.format_help().strip()}\n```" for name, one in commands.choices.items()
    ]
    return (
        "\n\n".join(["# Commands\n\nThe help of every command, as `bend-hf COMMAND --help` prints it.", *sections])
        + "\n"
    )
