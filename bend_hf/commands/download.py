"""``bend-hf download``: BEND's published files and genomes into a data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.commands._command import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="tasks or groups of tasks; default: all")
    parser.add_argument("--source", choices=["erda", "gcs"], default="gcs", help="BEND's own share, or its mirror")
    parser.add_argument("--base-url", help="another address with the same folders below it")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where to (default: data)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.published import SHARES, fetch_published
    from bend_hf.tasks import TASKS, select_tasks

    tasks = select_tasks(parsed.tasks) if parsed.tasks else list(TASKS)
    base_url = parsed.base_url or SHARES[parsed.source]
    for path in fetch_published(tasks, parsed.data_dir, base_url=base_url, say=print):
        print(f"  {path} ({path.stat().st_size / 1e6:,.1f} MB)")
    return 0


COMMANDS = (
    Command(
        key="download",
        text="fetch BEND's published files and genomes into a data folder",
        add_flags=_add_flags,
        run=_run,
    ),
)
