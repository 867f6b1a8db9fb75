"""A report over records: Markdown, CSV, one static page and plots, in a folder that is a static Space as it stands.

    from bend_hf.publishing.report import write_report
    write_report([Path("results")], Path("report"))

``README.md`` holds the tables (and the head that a Space needs), ``index.html`` the page, ``scores.csv`` the numbers,
``report.json`` which records it was made of and why it may not be published, if so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bend_hf import __version__
from bend_hf.evaluation.record import find_records, read_record
from bend_hf.files import write_bytes, write_text
from bend_hf.publishing.leaderboard import contests
from bend_hf.publishing.report.page import page
from bend_hf.publishing.report.plots import plot_files
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.ties import prediction_files
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
    say: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Writes the report; the same records give the same bytes.

    Args:
        places: Records, or folders of them.
        out: The folder; files of an older report in it are replaced.
        plots: Whether to draw; needs matplotlib.
        paired: Whether ties are found by the paired test where prediction files lie beside the records.
        say: Told what was left out.

    Returns:
        The files.

    Raises:
        RecordError: There is no record, one is damaged, or the folder cannot be written.
    """
    paths = find_records(places)
    records = [read_record(path) for path in paths]
    found = contests(records, prediction_files(paths, records) if paired else {}, say=say)
    drawn = plot_files(found, say) if plots else {}
    reasons = sorted({reason for contest in found for reason in contest.refusals})
    manifest: dict[str, Json] = {
        "bend_hf": __version__,
        "refusals": list(reasons),
        "records": [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "task": record.task}
            for path, record in zip(paths, records, strict=True)
        ],
    }
    written = [
        write_text(out / "README.md", _SPACE_HEAD + as_markdown(found)),
        write_text(out / "scores.csv", as_csv(found)),
        write_text(out / "index.html", page(found, drawn)),
        write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n"),
    ]
    return written + [write_bytes(out / name, content) for name, content in sorted(drawn.items())]
