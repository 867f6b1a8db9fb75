"""``bend-hf cache list``, ``verify``, ``prune`` and ``export``: manage cached embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.cli import Command
from bend_hf.config import Condition, flag_group, number_between

if TYPE_CHECKING:
    from bend_hf.embedders.cache.manage import EntryInfo


def _add_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    listed = actions.add_parser("list", help="list cached embeddings with their sizes")
    verified = actions.add_parser(
        "verify", help="check every checksum; a damaged shard is removed and recomputed when needed"
    )
    pruned = actions.add_parser("prune", help="remove cached embeddings")
    exported = actions.add_parser("export", help="write cached embeddings as a dataset: Parquet with a card")
    for action in (listed, verified, pruned, exported):
        action.add_argument("names", nargs="*", metavar="WORD", help="select by a word in the folder, label or model")
        flag_group(action, "data").add_argument(
            "--cache", type=Path, help="cache folder (default: embeddings in $BEND_HF_CACHE)"
        )
    output = flag_group(exported, "output")
    output.add_argument("--to", required=True, metavar="PLACE", help="folder to write, or hub:OWNER/NAME")
    output.add_argument("--public", action="store_true", help="make the repository public; by default, it is private")
    chosen = flag_group(pruned, "data")
    chosen.add_argument(
        "--older-than",
        type=number_between(0, kind=float),
        metavar="DAYS",
        help="select what has not changed for DAYS days",
    )
    chosen.add_argument("--unfinished", action="store_true", help="select what has missing shards")
    chosen.add_argument("--broken", action="store_true", help="select what cannot be read")
    chosen.add_argument("--all", action="store_true", help="select everything")
    flag_group(pruned, "output").add_argument(
        "--dry-run", action="store_true", help="list what would be removed; remove nothing"
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.embedders.cache import default_folder
    from bend_hf.embedders.cache.manage import list_entries, remove, select, verify

    cache = parsed.cache or default_folder()
    entries = list_entries(cache)
    if parsed.action == "prune" and not parsed.all:
        entries = select(
            entries,
            names=tuple(parsed.names),
            older_than_days=parsed.older_than,
            unfinished=parsed.unfinished,
            broken=parsed.broken,
        )
    elif parsed.action == "export":  # one dataset: words narrow the choice
        entries = [entry for entry in entries if all(word in entry.words() for word in parsed.names)]
    elif parsed.names:
        entries = select(entries, names=tuple(parsed.names))
    if parsed.action == "export":
        return _export(entries, parsed)
    if parsed.action == "verify":
        found = verify(entries, log=print)
        counts = f"{found.n_good} correct, {len(found.altered)} damaged, {found.n_missing} missing"
        print(f"shards in {cache}: {counts}")
        return 1 if found.altered else 0
    for entry in entries:
        print(entry.text())
        if parsed.action == "prune" and not parsed.dry_run:
            remove(entry)
    folders = "1 folder" if len(entries) == 1 else f"{len(entries)} folders"
    total = f"{sum(entry.size_bytes for entry in entries) / 1e9:10.3f} GB  in {folders} of {cache}"
    if parsed.action == "prune":
        total += ", would be removed" if parsed.dry_run else ", removed"
    print(total)
    return 0


def _export(entries: list[EntryInfo], parsed: argparse.Namespace) -> int:
    from bend_hf.publishing.cache_export import export

    done = export(entries, parsed.to, public=parsed.public)
    if isinstance(done, Path):
        print(done)
    else:
        print(f"{done.upload.name}: {'pushed' if done.changed else 'nothing to change'}, {done.url}")
    return 0


_CONDITIONS: Final = (
    Condition(
        flags=("public",), met=lambda given: given.to.startswith("hub:"), reason="--to is a folder, not a repository"
    ),
    Condition(
        flags=("names", "older_than", "unfinished", "broken"),
        met=lambda given: not getattr(given, "all", False),
        reason="--all removes everything",
    ),
)

COMMANDS = (
    Command(
        key="cache",
        text="list, check, export or remove cached embeddings",
        example="bend-hf cache prune gene_finding --older-than 30 --dry-run",
        add_flags=_add_flags,
        conditions=_CONDITIONS,
        run=_run,
    ),
)
