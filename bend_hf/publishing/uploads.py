"""Plan what a push sends where: datasets, metrics, a card, results or a report.

Nothing is sent here; `bend_hf.publishing.hub.push` does that. Scores of the bundled sample, of a part of the items or
of settings that differ from the benchmark's are refused here.

>>> plan_metrics("me")[0].repo
'me/auprc'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.evidence import prediction_entries, read_all_verified
from bend_hf.evaluation.metrics import metric_files, metric_names
from bend_hf.evaluation.record import ResultRecord, find_records, member, record_text
from bend_hf.evaluation.remembered import content_sha256
from bend_hf.files import asset_folder, file_name, parse_json
from bend_hf.publishing.card_folder import CARD_FILE, RECORDS_FILE, read_card
from bend_hf.publishing.card_heads import check_heads
from bend_hf.publishing.eval_results import FOLDER, eval_result_files, eval_yaml
from bend_hf.publishing.hub import Upload, UploadFile
from bend_hf.publishing.model_card import NOT_BEND_SCORES
from bend_hf.publishing.publishable import reasons_not_to_publish
from bend_hf.publishing.report import MANIFEST
from bend_hf.publishing.results import group_records
from bend_hf.runs.verify import check_with_data_at_hand
from bend_hf.tasks import TASKS

DatasetMatcher: TypeAlias = Callable[[list[ResultRecord]], list[ResultRecord]]

_LONGEST_NAME: Final = 96  # huggingface_hub.utils.validate_repo_id
REPORT_REPO: Final = "bend_report"
_IGNORED: Final = frozenset({"__pycache__", ".git", ".cache"})


def plan_datasets(folder: Path, namespace: str, names: Sequence[str] = ()) -> list[Upload]:
    """Plan one dataset repository per built folder, with the ``eval.yaml`` of its leaderboards.

    Args:
        folder: Output folder of ``bend-hf build``.
        namespace: User or organization on the Hub.
        names: Names of built datasets; empty for all of them.

    Raises:
        ConfigError: Nothing was built in the folder, or not one of the names.
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
    uploads = []
    for name in names or sorted(built):
        files = [_for_namespace(file, namespace, name) for file in _files(built[name])]
        if name in groups:
            files = [
                *(file for file in files if file.path != "eval.yaml"),
                UploadFile("eval.yaml", eval_yaml(name).encode()),
            ]
        uploads.append(
            Upload(
                repo=f"{namespace}/{name}",
                repo_type="dataset",
                files=_sorted(files),
                message=f"Upload {name} with bend_hf",
                mirrored=("data",),
                filled_by=FACTS_FILE,
            )
        )
    return uploads


def _for_namespace(file: UploadFile, namespace: str, name: str) -> UploadFile:
    """The file; in the card, the example loads the dataset from the repository that the card goes to."""
    if file.path != CARD_FILE or namespace == HUB_NAMESPACE:
        return file
    example = 'load_dataset("{}/' + name + '"'
    text = file.read().decode("utf-8", errors="surrogateescape")
    text = text.replace(example.format(HUB_NAMESPACE), example.format(namespace))
    return UploadFile(file.path, text.encode("utf-8", errors="surrogateescape"))


def _is_built(path: Path) -> bool:
    return (path / "README.md").is_file() and any(path.glob(f"data/**/{FACTS_FILE}"))


def plan_metrics(namespace: str, names: Sequence[str] = ()) -> list[Upload]:
    """Plan one Space per metric.

    Args:
        namespace: User or organization on the Hub.
        names: Names of metrics; empty for all of them.

    Raises:
        ConfigError: A metric is unknown.
    """
    known = metric_names()
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(f"unknown metric {unknown[0]!r}; {did_you_mean(unknown[0], list(known))}")
    return [
        Upload(
            repo=f"{namespace}/{name}",
            repo_type="space",
            files=tuple(UploadFile(path, content) for path, content in metric_files(name).items()),
            message=f"Upload {name} with bend_hf",
            space_sdk="gradio",
        )
        for name in names or metric_names(plugins=False)
    ]


def plan_card(folder: Path, repo: str, *, create_pr: bool = False) -> Upload:
    """Plan the model repository of a card that ``bend-hf card`` wrote; for a pull request only its scores.

    Raises:
        ConfigError: The folder holds no card.
        RecordError: The scores may not be published, or differ from the records of the card.
    """
    card = folder / CARD_FILE
    if card.is_file() and NOT_BEND_SCORES in card.read_text(encoding="utf-8"):
        raise RecordError(f"{card} holds scores that may not be published and lists the reasons; write a card without")
    records, paths = read_card(folder)
    check_publishable(records.records)
    scores = [UploadFile(name, path) for name, path in sorted(paths.items())]
    own = [UploadFile(name, folder / name) for name in (CARD_FILE, RECORDS_FILE)]
    own += [UploadFile(name, path) for name, path in check_heads(folder, records.records).items()]
    return Upload(
        repo=repo,
        repo_type="model",
        files=tuple(scores) if create_pr else _sorted([*own, *scores]),
        message="Add BEND evaluation results",
        create_pr=create_pr,
        own_card=True,
    )


def card_repo(folder: Path) -> str:
    """The default name of a card's repository, such as ``dnabert2-bend``, from the name of its model.

    Raises:
        ConfigError: The folder holds no card, or the Hub does not take such a name.
    """
    records, _ = read_card(folder)
    return repo_name(records.model)


def repo_name(model: str) -> str:
    """The default name of the repository of a model's card.

    >>> repo_name("my*model[v1], layer 6")
    'my-model-v1-layer-6-bend'

    Raises:
        ConfigError: The name would lose letters or is too long, so that the user has to choose one.
    """
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", model)
    name = re.sub(r"\.{2,}", ".", name).strip("-.") + "-bend"
    lost = sorted({sign for sign in model if sign.isalnum() and not sign.isascii()})
    if lost or name == "-bend" or len(name) > _LONGEST_NAME:
        why = f"holds {lost[0]!r}, which a name on the Hub cannot" if lost else "gives no name that the Hub takes"
        raise ConfigError(f"the name of the model, {_shown(model)}, {why}; give --repo OWNER/NAME")
    return name


def _shown(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_NAME else text[:40] + "...")


def plan_scores(records: Sequence[ResultRecord], repo: str, *, create_pr: bool) -> Upload:
    """Plan the ``.eval_results`` files of records in a model's repository.

    Raises:
        RecordError: A score may not be published, or its dataset is unknown.
    """
    check_publishable(records)
    results = group_records(records)
    models = sorted({result.model for result in results})
    if len(models) != 1:
        raise RecordError(
            f"the records are of {len(models)} models, {', '.join(models)}; expected one for {repo}. Select it with "
            "--model."
        )
    files = eval_result_files(results)
    return Upload(
        repo=repo,
        repo_type="model",
        files=tuple(UploadFile(name, text.encode()) for name, text in files.items()),
        message="Add BEND evaluation results",
        create_pr=create_pr,
    )


def plan_results(
    places: Sequence[Path], repo: str, match: DatasetMatcher = list, *, appends: bool = False, create_pr: bool = False
) -> Upload:
    """Plan the dataset repository of records and their predictions.

    Args:
        places: Records, or folders of them.
        repo: ``owner/name``.
        match: Writes into each record the Hub dataset that it was scored on.
        appends: Whether the repository is a store that others push to as well: nothing there is replaced.
        create_pr: Whether to open a pull request on it.

    Raises:
        RecordError: A score may not be published, or a prediction file is missing or was changed.
    """
    paths = find_records(places)
    records = read_all_verified(paths, complete=True)
    check_with_data_at_hand(paths, records, is_push=True)
    matched = match(records)
    check_publishable(matched, [path.name for path in paths])
    files = []
    for path, record, named in zip(paths, records, matched, strict=True):
        content = path if named == record else record_text(named).encode()  # which names its dataset
        files.append(UploadFile(f"{file_name(record.task)}/{path.name}", content))
        for entry in prediction_entries(record):
            predictions = path.with_name(str(member(entry, "file")))
            if not predictions.is_file() or content_sha256(predictions) != member(entry, "sha256"):
                raise RecordError(f"{predictions} is missing or differs from what {path.name} states; repeat the run")
            files.append(UploadFile(f"{file_name(record.task)}/{predictions.name}", predictions))
    files.append(UploadFile(CARD_FILE, (asset_folder("model_cards") / "results_card.md").read_bytes()))
    return Upload(
        repo=repo,
        repo_type="dataset",
        files=_sorted(files),
        message="Add results with bend_hf",
        appends=appends,
        create_pr=create_pr,
    )


def plan_report(folder: Path, repo: str) -> Upload:
    """Plan the static Space of a report.

    Raises:
        ConfigError: The folder holds no report.
        RecordError: The report shows scores that may not be published.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file() or not (folder / "index.html").is_file():
        raise ConfigError(f"{folder} holds no report; run 'bend-hf report' first")
    try:
        reasons = parse_json(manifest.read_text(encoding="utf-8"))["refusals"]
        texts = [str(reason) for reason in list(reasons)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{manifest} is damaged ({type(error).__name__}); run 'bend-hf report' again") from error
    if texts:
        raise RecordError(
            f"{folder} shows scores that may not be published: {'; '.join(texts)}. Write a report without them."
        )
    return Upload(
        repo=repo,
        repo_type="space",
        files=_sorted(_files(folder)),
        message="Upload report with bend_hf",
        space_sdk="static",
        mirrored=("plots",),
        filled_by=MANIFEST,
    )


def check_publishable(records: Sequence[ResultRecord], names: Sequence[str] = ()) -> None:
    """Check that all records may be published as BEND scores.

    Args:
        records: The records.
        names: Names of the records in the message; the tasks if empty.

    Raises:
        RecordError: The message lists the first five records that may not be published, with the reasons.
    """
    refused = []
    for index, record in enumerate(records):
        reasons = reasons_not_to_publish(record)
        if reasons:
            refused.append(f"{names[index] if names else record.task}: {'; '.join(reasons)}")
    if refused:
        raise RecordError(f"{len(refused)} of {len(records)} records may not be published. {' | '.join(refused[:5])}")


def _files(folder: Path) -> list[UploadFile]:
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part in _IGNORED or (part.startswith(".") and part != FOLDER) for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            found.append(UploadFile("/".join(parts), path))
    return found


def _sorted(files: Sequence[UploadFile]) -> tuple[UploadFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))
