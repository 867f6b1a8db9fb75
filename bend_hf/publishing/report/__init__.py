"""Write a report over result records: Markdown, CSV, a static web page and plots, in a folder that is a static Space.

    from bend_hf.publishing.report import write_report
    write_report([Path("results")], Path("report"))

``README.md`` holds the tables and the metadata of a Space, ``index.html`` the page, ``scores.csv`` the numbers, and
``report.json`` lists the records and the reasons not to publish the report. `tables`, `page` and `plots` each make one
of them from the leaderboards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Final

from bend_hf import __version__
from bend_hf.evaluation.evidence import read_all_verified
from bend_hf.evaluation.layer_choice import curves_of, of_choices
from bend_hf.evaluation.record import ResultRecord, find_records
from bend_hf.files import json_sha256, write_bytes, write_text
from bend_hf.publishing.leaderboard import leaderboards, with_published
from bend_hf.publishing.others import NO_OTHERS, OtherResults
from bend_hf.publishing.report.page import page
from bend_hf.publishing.report.plots import layer_plots, plot_files
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.results_store import StoredResults, read_store
from bend_hf.publishing.ties import prediction_files
from bend_hf.runs.verify import check_with_data_at_hand
from bend_hf.types import Json

MANIFEST: Final = "report.json"
_SPACE_HEAD: Final = """---
title: BEND report
emoji: 🧬
colorFrom: blue
colorTo: green
sdk: static
app_file: index.html
pinned: false
license: bsd-3-clause
tags:
- biology
- genomics
- BEND
---

"""


def write_report(
    places: Sequence[Path],
    out: Path,
    *,
    plots: bool = True,
    paired: bool = True,
    others: OtherResults = NO_OTHERS,
    log: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Write the report. The same records give the same bytes.

    Args:
        places: Records, or folders of them.
        out: Folder to write; files of an earlier report are replaced.
        plots: Whether to draw plots; they need matplotlib.
        paired: Whether to find ties by a paired test if prediction files lie next to the records.
        others: Results of others to show next to one's own.
        log: Receives one line for everything that is left out.

    Returns:
        The files.

    Raises:
        RecordError: There are no records, one is damaged, or the folder cannot be written.
    """
    paths = find_records(places)
    records = read_all_verified(paths)
    check_with_data_at_hand(paths, records, log=log)
    files = prediction_files(paths, records)
    stored = [read_store(name, {record.task for record in records}, log=log) for name in others.stores]
    shown, stores = _together(records, stored, log)
    for store in stored:
        files = {**store.files, **files}
    ranked = of_choices(shown)
    boards = leaderboards(
        list(compress(shown, ranked)), files if paired else {}, stores=list(compress(stores, ranked)), log=log
    )
    boards = with_published(boards, log=log) if others.published else boards
    curves = curves_of(shown)
    drawn = plot_files(boards, log) if plots else {}
    if plots:
        drawn |= {f"plots/{name}": content for name, content in layer_plots(curves, log).items()}
    reasons = sorted({reason for board in boards for reason in board.reasons_not_to_publish})
    manifest: dict[str, Json] = {
        "bend_hf": __version__,
        "refusals": list(reasons),
        "records": [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "task": record.task}
            for path, record in zip(paths, records, strict=True)
        ],
    }
    if stored:
        manifest["stores"] = [{"repo": one.repo, "commit": one.commit, "records": len(one.records)} for one in stored]
    written = [
        write_text(out / "README.md", _SPACE_HEAD + as_markdown(boards, curves)),
        write_text(out / "scores.csv", as_csv(boards)),
        write_text(out / "index.html", page(boards, drawn, curves)),
        write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n"),
    ]
    return written + [write_bytes(out / name, content) for name, content in sorted(drawn.items())]


def _together(
    records: Sequence[ResultRecord], stored: Sequence[StoredResults], log: Callable[[str], None]
) -> tuple[list[ResultRecord], list[str]]:
    """One's own records and those of stores, each with its store; what is there twice is taken once."""
    shown, stores = list(records), [""] * len(records)
    seen = set(map(_run_of, records))
    for store in stored:
        new = {_run_of(record): record for record in store.records}
        added = [record for run, record in new.items() if run not in seen]
        n_known = len(store.records) - len(added)
        log(f"{store.repo} at {store.commit[:12]}: {len(added)} records are shown, {n_known} are already there")
        seen |= set(new)
        shown += added
        stores += [store.repo] * len(added)
    return shown, stores


def _run_of(record: ResultRecord) -> str:
    """A hash that two copies of one run share, also if one of them names the Hub dataset of its files."""
    return json_sha256([record.task, record.created_at, record.model, record.metrics, record.predictions])
