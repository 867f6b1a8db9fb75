"""``bend-hf download``: download BEND's files and genomes into a data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._output import progress_of
from bend_hf.config import flag_group


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="tasks or groups of tasks; default: all of BEND's")
    data, output = flag_group(parser, "data"), flag_group(parser, "output")
    data.add_argument(
        "--source",
        choices=["erda", "gcs", "hub"],
        default="gcs",
        help="erda: BEND's original share; gcs: its mirror; hub: built datasets (default: gcs)",
    )
    data.add_argument("--base-url", help="other address with the same folders, for erda and gcs")
    data.add_argument("--namespace", help="owner of the datasets, for hub (default: $BEND_HF_NAMESPACE, or bend)")
    output.add_argument("--data-dir", type=Path, default=Path("data"), help="folder to write (default: data)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.tasks import TASKS, select_tasks
    from bend_hf.tasks._spec import BEND

    tasks = select_tasks(parsed.tasks) if parsed.tasks else [task for task in TASKS if BEND in task.citations]
    if parsed.source == "hub":
        from bend_hf.data.published_files import fetch_from_hub
        from bend_hf.data.sources import default_namespace

        found = fetch_from_hub(
            tasks, parsed.data_dir, namespace=parsed.namespace or default_namespace(), log=progress_of(parsed)
        )
    else:
        from tqdm.auto import tqdm

        from bend_hf.data.published_files import SHARES, Published, fetch_published
        from bend_hf.files import shows_progress

        base_url = parsed.base_url or SHARES[parsed.source]
        with tqdm(unit="B", unit_scale=True, dynamic_ncols=True, disable=not shows_progress()) as bar:

            def progress(name: str, done: int, total: int | None) -> None:
                bar.set_description(name, refresh=False)
                bar.total = total
                bar.update(done - bar.n)

            found = fetch_published(
                tasks,
                parsed.data_dir,
                Published(base_url=base_url),
                log=bar.write if shows_progress() else progress_of(parsed),
                progress=progress,
            )
    for path in found:
        print(f"  {path} ({path.stat().st_size / 1e6:,.1f} MB)")
    return 0


COMMANDS = (
    Command(
        key="download",
        text="download BEND's files and genomes into a data folder",
        example="bend-hf download gene_finding --data-dir data",
        add_flags=_add_flags,
        run=_run,
    ),
)
