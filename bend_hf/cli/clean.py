"""``bend-hf clean``: list and remove what interrupted processes left."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from bend_hf.cli import Command
from bend_hf.config import flag_group

# The default output folders of the commands, and the data folder of bend-hf download.
_DEFAULTS: Final = ("bend", "results", "data")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="folders to search (default: bend, results and data)"
    )
    data, output = flag_group(parser, "data"), flag_group(parser, "output")
    data.add_argument(
        "--resumable", action="store_true", help="remove what interrupted runs and downloads would resume from, too"
    )
    data.add_argument("--caches", action="store_true", help="remove the caches in $BEND_HF_CACHE, too")
    output.add_argument("--dry-run", action="store_true", help="list what would be removed; remove nothing")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.errors import SourceError
    from bend_hf.files import cache_folder
    from bend_hf.runs.leftovers import find_leftovers

    missing = [folder for folder in parsed.folders if not folder.is_dir()]
    if missing:
        raise SourceError(f"{missing[0]} is not a folder; give folders that bend-hf wrote to")
    chosen = {"unfinished", "lock", *(["resumable"] * parsed.resumable), *(["cache"] * parsed.caches)}
    folders = parsed.folders or [Path(name) for name in _DEFAULTS]
    n_bytes, n_removed, status = 0, 0, 0
    for item in find_leftovers([*folders, cache_folder("")], caches=True):
        kept = item.kept_because
        if item.kind not in chosen:
            kept = f"--{'caches' if item.kind == 'cache' else item.kind} removes it"
        print(f"{item.size_bytes / 1e6:12.3f} MB  {item.kind}: {item.path}{f'; kept: {kept}' if kept else ''}")
        if kept is not None:
            continue
        try:
            if not parsed.dry_run:
                item.remove()
        except OSError as error:
            print(f"{'':15}  cannot be removed ({error})")
            status = 1
            continue
        n_bytes, n_removed = n_bytes + item.size_bytes, n_removed + 1
    verb = "would be removed" if parsed.dry_run else "removed"
    print(f"{n_bytes / 1e6:12.3f} MB  in {n_removed} files and folders, {verb}")
    return status


COMMANDS = (
    Command(
        key="clean",
        text="list and remove what interrupted commands left: unfinished files, locks, and on request caches",
        example="bend-hf clean results --dry-run",
        add_flags=_add_flags,
        run=_run,
    ),
)
