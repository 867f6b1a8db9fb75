"""``bend-hf push``: datasets, metrics, a card, results or a report to the Hub; nothing is sent with ``--dry-run``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.cli import Command

if TYPE_CHECKING:
    from bend_hf.publishing.hub import Upload

_KINDS = ("dataset", "metric", "card", "results", "report")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=_KINDS, help="what to push")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which datasets or metrics; default: all there are")
    parser.add_argument("--namespace", help="user or organisation on the Hub; needed unless --repo names all")
    parser.add_argument("--repo", help="OWNER/NAME instead of the usual name below the namespace")
    parser.add_argument("--from", dest="folder", type=Path, help="folder to push: bend, card, results or report")
    parser.add_argument("--dry-run", action="store_true", help="list each file, its size and target; send nothing")
    parser.add_argument("--public", action="store_true", help="make the repositories public; new ones are private else")
    parser.add_argument("--create-pr", action="store_true", help="scores only, as a pull request to the model's --repo")
    parser.add_argument("--model", help="with --create-pr: take only records of this model, named as in the report")
    parser.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="GROUP=OWNER/NAME@COMMIT",
        help="dataset that a task group was scored on, where the records do not say; may be given again",
    )


def _run(parsed: argparse.Namespace) -> int:
    uploads = _plan(parsed)
    for upload in uploads:
        print("\n".join(upload.lines()))
    if parsed.dry_run:
        print("dry run: nothing was sent")
        return 0
    from bend_hf.publishing.hub import push

    for pushed in push(uploads, public=parsed.public):
        outcome = "pushed" if pushed.changed else "nothing to change"
        print(f"{pushed.upload.name}: {outcome}, {pushed.url}")
    return 0


def _plan(parsed: argparse.Namespace) -> list[Upload]:
    from bend_hf.errors import ConfigError
    from bend_hf.publishing import uploads as plans

    if parsed.kind in ("dataset", "metric"):
        if parsed.namespace is None or parsed.repo or parsed.create_pr:
            raise ConfigError(f"push {parsed.kind} takes --namespace, and neither --repo nor --create-pr")
        if parsed.kind == "metric":
            return plans.plan_metrics(parsed.namespace, parsed.names)
        return plans.plan_datasets(parsed.folder or Path("bend"), parsed.namespace, parsed.names)
    if parsed.names:
        raise ConfigError(f"push {parsed.kind} takes no names ({', '.join(parsed.names)}); --from gives the folder")
    if parsed.create_pr and (parsed.kind == "report" or not parsed.repo):
        raise ConfigError("--create-pr puts scores of a card or of results into the --repo OWNER/NAME of a model")
    if parsed.kind == "card":
        folder = parsed.folder or Path("card")
        return [plans.plan_card(folder, _repo(parsed, plans.card_name(folder)), create_pr=parsed.create_pr)]
    if parsed.kind == "report":
        return [plans.plan_report(parsed.folder or Path("report"), _repo(parsed, plans.REPORT_REPO))]
    return [_plan_results(parsed)]


def _plan_results(parsed: argparse.Namespace) -> Upload:
    from bend_hf.evaluation.record import find_records, read_record
    from bend_hf.publishing import uploads as plans
    from bend_hf.publishing.publishable import match_dataset, parse_datasets, read_hub_facts
    from bend_hf.publishing.results import records_of_model

    named = parse_datasets(parsed.dataset)
    folder = parsed.folder or Path("results")
    if not parsed.create_pr:
        repo = _repo(parsed, plans.RESULTS_REPO)
        return plans.plan_results([folder], repo, lambda records: match_dataset(records, named, read_hub_facts))
    records = records_of_model([read_record(path) for path in find_records([folder])], parsed.model)
    return plans.plan_scores(match_dataset(records, named, read_hub_facts), parsed.repo, create_pr=True)


def _repo(parsed: argparse.Namespace, name: str) -> str:
    from bend_hf.errors import ConfigError

    if parsed.repo:
        return str(parsed.repo)
    if parsed.namespace is None:
        raise ConfigError("say where to: --namespace NAME, or --repo OWNER/NAME")
    return f"{parsed.namespace}/{name}"


COMMANDS = (
    Command(
        key="push",
        text="push datasets, metrics, a card, results or a report to the Hub",
        add_flags=_add_flags,
        run=_run,
    ),
)
