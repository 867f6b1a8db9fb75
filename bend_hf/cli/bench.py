"""``bend-hf bench``: measure a model on this machine.

bend-hf bench --model dnabert2 --device cuda --model-dtype bfloat16
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import add_flags, given_values
from bend_hf.runs.bench import BenchConfig
from bend_hf.tables import Table

if TYPE_CHECKING:
    from bend_hf.runs.bench import Bench


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, BenchConfig)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.bench import bench

    found = bench(BenchConfig(**given_values(BenchConfig, parsed)))
    show(parsed, _text(found), [asdict(found)])
    return 0


def _compiled(found: Bench) -> list[str]:
    if found.compiled_speed_up is None:
        return []
    return [f"compiled: {found.compiled_speed_up:.2f} times the speed without torch.compile"]


def _text(found: Bench) -> list[object]:
    lines = (
        f"{found.model} on {found.device} in {found.dtype}, sequences of {found.window_bp} bp",
        f"whole embedder: {found.nucleotides_per_second:,.0f} nucleotides per second, {found.share_of_bare:.2f} of the "
        f"network alone ({found.bare_nucleotides_per_second:,.0f})",
        *_compiled(found),
        f"matrix products: {found.matmul_flops / 1e12:.3g} TFLOP/s, of which the embedder uses "
        f"{found.share_of_matmul_peak:.0%}",
        f"embeddings to store: {found.stored_bytes_per_second / 1e6:,.0f} MB per second; the disk takes "
        f"{found.disk_bytes_per_second / 1e6:,.0f}",
        "",
    )
    rows = [
        (
            one.task,
            f"{one.nucleotides / 1e6:,.0f} million",
            f"{one.hours:,.2f}",
            "not cached" if one.gigabytes is None else f"{one.gigabytes:,.1f}",
        )
        for one in found.tasks
    ]
    return [*lines, Table(header=("task", "nucleotides", "hours", "GB"), rows=rows)]


COMMANDS = (
    Command(
        key="bench",
        text="measure how fast a model embeds on this machine, and the hours and gigabytes of each task",
        example="bend-hf bench --model bend-mini --windows 16",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
