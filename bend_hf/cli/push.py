"""``bend-hf push``: push datasets, metrics, a card, results or a report to the Hub."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.cli import Command
from bend_hf.config import Condition, flag_group

if TYPE_CHECKING:
    from bend_hf.evaluation.record import ResultRecord
    from bend_hf.publishing.hub import Upload

_KINDS = ("dataset", "metric", "card", "results", "report")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.data.sources import NAMESPACE_VARIABLE

    parser.add_argument("kind", choices=_KINDS, help="what to push")
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of datasets or metrics; default: all")
    output, data, model = flag_group(parser, "output"), flag_group(parser, "data"), flag_group(parser, "model")
    output.add_argument(
        "--namespace",
        default=os.environ.get(NAMESPACE_VARIABLE) or None,
        help=f"user or organization on the Hub; needed without --repo (default: ${NAMESPACE_VARIABLE})",
    )
    output.add_argument("--repo", help="OWNER/NAME of the repository, instead of the default name in the namespace")
    data.add_argument(
        "--from", dest="folder", type=Path, help="folder to push (default: bend, card, results or report, by KIND)"
    )
    output.add_argument(
        "--to",
        metavar="OWNER/NAME",
        help="shared store of results, to which records and predictions are added; with --create-pr by a pull request",
    )
    output.add_argument(
        "--dry-run", action="store_true", help="list the repositories and files with their sizes; send nothing"
    )
    output.add_argument(
        "--public", action="store_true", help="make the repositories public; by default, new ones are private"
    )
    output.add_argument(
        "--create-pr",
        action="store_true",
        help="open a pull request with the scores on the model's --repo, or with the results on the store --to",
    )
    model.add_argument("--model", help="with --create-pr: select the records of one model, named as in the report")
    data.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="GROUP=OWNER/NAME@COMMIT",
        help="Hub dataset of a task group, for records that do not name it; can be repeated",
    )


def _run(parsed: argparse.Namespace) -> int:
    planned = _plan(parsed)
    for upload in planned:
        print("\n".join(upload.lines()))
    if parsed.dry_run:
        print("dry run: nothing was sent")
        return 0
    from bend_hf.publishing.hub import push

    for pushed in push(planned, public=parsed.public):
        outcome = "pushed" if pushed.changed else "nothing to change"
        print(f"{pushed.upload.name}: {outcome}, {pushed.url}")
    return 0


def _plan(parsed: argparse.Namespace) -> list[Upload]:
    from bend_hf.errors import ConfigError
    from bend_hf.publishing import uploads

    if parsed.kind in ("dataset", "metric"):
        if parsed.namespace is None:
            raise ConfigError(f"push {parsed.kind} needs --namespace NAME, a user or an organization on the Hub")
        if parsed.kind == "metric":
            return uploads.plan_metrics(parsed.namespace, parsed.names)
        return uploads.plan_datasets(parsed.folder or Path("bend"), parsed.namespace, parsed.names)
    if parsed.create_pr and not (parsed.repo or parsed.to):
        raise ConfigError("--create-pr needs --repo OWNER/NAME of a model, or --to OWNER/NAME of a store of results")
    if parsed.kind == "card":
        folder = parsed.folder or Path("card")
        return [uploads.plan_card(folder, _repo(parsed, lambda: uploads.card_repo(folder)), create_pr=parsed.create_pr)]
    if parsed.kind == "report":
        return [uploads.plan_report(parsed.folder or Path("report"), _repo(parsed, lambda: uploads.REPORT_REPO))]
    return [_plan_results(parsed)]


def _plan_results(parsed: argparse.Namespace) -> Upload:
    from bend_hf.evaluation.evidence import read_all_verified
    from bend_hf.evaluation.record import find_records
    from bend_hf.publishing import uploads
    from bend_hf.publishing.models import records_of_model
    from bend_hf.publishing.publishable import match_dataset, parse_datasets, read_hub_facts
    from bend_hf.publishing.results_store import RESULTS_REPO, full_name
    from bend_hf.runs.verify import check_with_data_at_hand

    named = parse_datasets(parsed.dataset)
    folder = parsed.folder or Path("results")

    def match(records: list[ResultRecord]) -> list[ResultRecord]:
        return match_dataset(records, named, read_hub_facts)

    if parsed.to:
        repo = full_name(parsed.to)
        return uploads.plan_results([folder], repo, match, appends=True, create_pr=parsed.create_pr)
    if not parsed.create_pr:
        return uploads.plan_results([folder], _repo(parsed, lambda: RESULTS_REPO), match)
    paths = find_records([folder])
    verified = read_all_verified(paths, complete=True)
    records = records_of_model(verified, parsed.model)
    check_with_data_at_hand(paths, verified, is_push=True)
    return uploads.plan_scores(match(records), parsed.repo, create_pr=True)


def _repo(parsed: argparse.Namespace, name: Callable[[], str]) -> str:
    from bend_hf.errors import ConfigError

    if parsed.repo:
        return str(parsed.repo)
    if parsed.namespace is None:
        raise ConfigError("the repository is not given; give --namespace NAME or --repo OWNER/NAME")
    return f"{parsed.namespace}/{name()}"


_CONDITIONS: Final = (
    Condition(
        flags=("names",),
        met=lambda given: given.kind in ("dataset", "metric"),
        reason="only datasets and metrics have names; set the folder of another kind with --from",
    ),
    Condition(flags=("folder",), met=lambda given: given.kind != "metric", reason="metrics come with the package"),
    Condition(
        flags=("repo", "create_pr"),
        met=lambda given: given.kind not in ("dataset", "metric"),
        reason="each dataset or metric has a repository of its own; give --namespace",
    ),
    Condition(
        flags=("create_pr",),
        met=lambda given: given.kind in ("card", "results"),
        reason="a pull request holds the scores of a card or of results",
    ),
    Condition(flags=("public",), met=lambda given: not given.create_pr, reason="--create-pr changes no repository"),
    Condition(
        flags=("model",),
        met=lambda given: given.kind == "results" and given.create_pr and not given.to,
        reason="only 'push results --create-pr' to the repository of a model selects a model",
    ),
    Condition(flags=("to",), met=lambda given: given.kind == "results", reason="only results go to a shared store"),
    Condition(flags=("repo",), met=lambda given: not given.to, reason="--to names the repository"),
    Condition(
        flags=("dataset",), met=lambda given: given.kind == "results", reason="only 'push results' looks for datasets"
    ),
    Condition(flags=("namespace",), met=lambda given: not given.repo, reason="--repo names the owner"),
    Condition(flags=("namespace",), met=lambda given: not given.to, reason="--to names the owner"),
)

COMMANDS = (
    Command(
        key="push",
        conditions=_CONDITIONS,
        text="push datasets, metrics, a card, results or a report to the Hub",
        example="bend-hf push results --namespace my-name --dry-run",
        add_flags=_add_flags,
        run=_run,
    ),
)
