"""What a push sends where, decided before anything is sent: datasets, metrics, a card, results, a report.

Scores of the bundled sample, of part of the items, or of a configuration that is not the benchmark's are refused here.

>>> plan_metrics("me")[0].repo.startswith("me/")
True
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.data.dataset import FACTS_FILE
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.metrics import metric_files, metric_names
from bend_hf.evaluation.record import ResultRecord, find_records, read_record
from bend_hf.files import asset_folder
from bend_hf.publishing.eval_results import FOLDER, check_eval_text, eval_result_files, eval_yaml
from bend_hf.publishing.hub import PushFile, Target
from bend_hf.publishing.publishable import refusals
from bend_hf.publishing.report import MANIFEST
from bend_hf.publishing.results import gather
from bend_hf.tasks import TASKS

Attribute: TypeAlias = Callable[[list[ResultRecord]], list[ResultRecord]]

RESULTS_REPO: Final = "bend_results"
REPORT_REPO: Final = "bend_report"
_IGNORED: Final = frozenset({"__pycache__", ".git", ".cache"})


def plan_datasets(folder: Path, namespace: str, names: Sequence[str] = ()) -> list[Target]:
    """A dataset repository for each built folder below one, with the ``eval.yaml`` of its boards.

    Args:
        folder: What ``bend-hf build`` wrote.
        namespace: Whose repositories.
        names: Folders to take; all built ones where empty.

    Raises:
        ConfigError: Nothing is built there, or a named one is not.
    """
    built = {path.name: path for path in sorted(folder.iterdir()) if _is_built(path)} if folder.is_dir() else {}
    missing = sorted(set(names) - set(built))
    if missing or not built:
        raise ConfigError(
            f"{folder} holds {', '.join(built) or 'no built dataset'}"
            + (f", but not {', '.join(missing)}" if missing else "")
            + "; run 'bend-hf build' first"
        )
    groups = {task.group for task in TASKS}
    targets = []
    for name in names or sorted(built):
        files = _files(built[name])
        if name in groups:
            files = [
                *(file for file in files if file.path != "eval.yaml"),
                PushFile("eval.yaml", eval_yaml(name).encode()),
            ]
        targets.append(
            Target(
                repo=f"{namespace}/{name}",
                repo_type="dataset",
                files=_sorted(files),
                message=f"Upload {name} with bend_hf",
                mirrored=("data",),
            )
        )
    return targets


def _is_built(path: Path) -> bool:
    return (path / "README.md").is_file() and any(path.glob(f"data/**/{FACTS_FILE}"))


def plan_metrics(namespace: str, names: Sequence[str] = ()) -> list[Target]:
    """A Space for each metric.

    Raises:
        ConfigError: A named metric is not there.
    """
    known = metric_names()
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(f"there is no metric {', '.join(unknown)}; known are {', '.join(known)}")
    return [
        Target(
            repo=f"{namespace}/{name}",
            repo_type="space",
            files=tuple(PushFile(path, content) for path, content in metric_files(name).items()),
            message=f"Upload {name} with bend_hf",
            space_sdk="gradio",
        )
        for name in names or metric_names(plugins=False)
    ]


def plan_card(folder: Path, repo: str, *, create_pr: bool = False) -> Target:
    """The model repository of a card that ``bend-hf card`` wrote; as a pull request, its scores alone.

    Raises:
        ConfigError: There is no card.
        RecordError: Its scores may not be published, or fail the check.
    """
    card = folder / "README.md"
    if not card.is_file():
        raise ConfigError(f"{folder} holds no README.md; run 'bend-hf card' first")
    if "**These are not scores of BEND**" in card.read_text(encoding="utf-8"):
        raise RecordError(f"{card} holds scores that may not be published; it says why. Make a card of others")
    scores = [PushFile(f"{FOLDER}/{path.name}", path) for path in sorted((folder / FOLDER).glob("*.yaml"))]
    for file in scores:
        assert isinstance(file.content, Path)
        check_eval_text(file.content.read_text(encoding="utf-8"), file.path)
    if create_pr and not scores:
        raise ConfigError(f"{folder} holds no {FOLDER}; give 'bend-hf card' the --dataset that was scored on")
    return Target(
        repo=repo,
        repo_type="model",
        files=tuple(scores) if create_pr else (PushFile("README.md", card), *scores),
        message="Add BEND evaluation results",
        create_pr=create_pr,
        own_card=True,
    )


def card_name(folder: Path) -> str:
    """What the repository of a card is called where nothing else is said: ``dnabert2-bend``."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    title = re.search(r"^# (.+) on BEND$", text, re.MULTILINE)
    return (re.sub(r"[^\w.-]+", "-", title[1]).strip("-.") if title else "card") + "-bend"


def plan_scores(records: Sequence[ResultRecord], repo: str, *, create_pr: bool) -> Target:
    """The ``.eval_results`` of records into a model's repository.

    Raises:
        RecordError: A score may not be published, or its dataset is not known.
    """
    refuse(records)
    entries = gather(records)
    models = sorted({entry.model for entry in entries})
    if len(models) != 1:
        raise RecordError(
            f"{repo} takes scores of one model, the records are of {', '.join(models)}; name one with --model"
        )
    files = eval_result_files(entries)
    return Target(
        repo=repo,
        repo_type="model",
        files=tuple(PushFile(name, text.encode()) for name, text in files.items()),
        message="Add BEND evaluation results",
        create_pr=create_pr,
    )


def plan_results(places: Sequence[Path], repo: str, attribute: Attribute = list) -> Target:
    """The dataset repository of records and their predictions.

    Args:
        places: Records, or folders of them.
        repo: Where to.
        attribute: Says which dataset the records were scored on, where they do not.

    Raises:
        RecordError: A score may not be published, or a prediction file is missing or was changed.
    """
    paths = find_records(places)
    records = [read_record(path) for path in paths]
    refuse(attribute(records), [path.name for path in paths])
    files = []
    for path, record in zip(paths, records, strict=True):
        files.append(PushFile(f"{record.task}/{path.name}", path))
        name, digest = record.predictions.get("file"), record.predictions.get("sha256")
        if not isinstance(name, str):
            continue
        predictions = path.with_name(name)
        if not predictions.is_file() or hashlib.sha256(predictions.read_bytes()).hexdigest() != digest:
            raise RecordError(f"{predictions} is missing or not what {path.name} says; run it again")
        files.append(PushFile(f"{record.task}/{name}", predictions))
    files.append(PushFile("README.md", (asset_folder("model_cards") / "results_card.md").read_bytes()))
    return Target(repo=repo, repo_type="dataset", files=_sorted(files), message="Add results with bend_hf")


def plan_report(folder: Path, repo: str) -> Target:
    """The static Space of a report.

    Raises:
        ConfigError: There is no report.
        RecordError: It shows scores that may not be published.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file() or not (folder / "index.html").is_file():
        raise ConfigError(f"{folder} holds no report; run 'bend-hf report' first")
    reasons = json.loads(manifest.read_text(encoding="utf-8"))["refusals"]
    if reasons:
        raise RecordError(f"{folder} shows scores that may not be published: {'; '.join(reasons)}. Leave those out")
    return Target(
        repo=repo,
        repo_type="space",
        files=_sorted(_files(folder)),
        message="Upload report with bend_hf",
        space_sdk="static",
        mirrored=("plots",),
    )


def refuse(records: Sequence[ResultRecord], names: Sequence[str] = ()) -> None:
    """Stops where a record may not be published as a score of BEND.

    Raises:
        RecordError: The message says which and why.
    """
    said = []
    for index, record in enumerate(records):
        reasons = refusals(record)
        if reasons:
            said.append(f"{names[index] if names else record.task}: {'; '.join(reasons)}")
    if said:
        raise RecordError(f"{len(said)} of {len(records)} records may not be published. " + " | ".join(said[:5]))


def _files(folder: Path) -> list[PushFile]:
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part in _IGNORED or (part.startswith(".") and part != FOLDER) for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            found.append(PushFile("/".join(parts), path))
    return found


def _sorted(files: Sequence[PushFile]) -> tuple[PushFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))
