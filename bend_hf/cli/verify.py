"""``bend-hf verify``: check finished runs against predictions and data, or a built folder against its files."""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from bend_hf.cli import Command
from bend_hf.cli._records import records_of
from bend_hf.config import DataConfig, add_flags, flag_group, given_values

_NOT_VERIFIED: Final = 1


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task",
        nargs="*",
        action="extend",
        default=argparse.SUPPRESS,
        metavar="RECORD|TASK",
        help="records of runs, or folders of them; or tasks, to check what bend-hf build wrote",
    )
    add_flags(parser, DataConfig)
    data = flag_group(parser, "data")
    data.add_argument(
        "--without-data",
        action="store_true",
        help="check records against their predictions only, if the data are not at hand",
    )
    data.add_argument(
        "--built", type=Path, default=Path("bend"), help="for tasks: output folder of bend-hf build (default: bend)"
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.errors import ConfigError, nearest
    from bend_hf.registry import names_file
    from bend_hf.tasks import ALL, task_names

    values = given_values(DataConfig, parsed)
    names = values.get("task", ())
    if not names and "bed" not in values:
        raise ConfigError("nothing to verify is named; give records of runs or a folder of them, such as results")
    tasks = {*task_names(), ALL}
    places = [Path(name) for name in names if name not in tasks and not names_file(name)]
    for path in places:
        if not path.exists() and nearest(str(path), tasks) is None:
            raise ConfigError(f"{path} does not exist, and is no task; give records of runs, or a folder of them")
    places = [path for path in places if path.exists() or path.suffix in (".json", ".parquet")]
    if not places:
        return _verify_built(values, parsed.built)
    if len(places) < len(names):
        raise ConfigError(
            f"{', '.join(names)} names records and tasks; give records of runs, or the tasks of a built folder"
        )
    values.pop("task")
    return _verify_records(places, values, with_data=not parsed.without_data)


def _verify_built(values: dict[str, Any], built: Path) -> int:
    from bend_hf.publishing.verify_dataset import verify

    for line in verify(DataConfig(**values), built):
        print(line)
    return 0


def _verify_records(places: list[Path], values: dict[str, Any], *, with_data: bool) -> int:
    """Print a line for each record; the status is 1 if one does not hold."""
    from bend_hf.errors import BendError, ConfigError
    from bend_hf.evaluation.record import find_records
    from bend_hf.runs.recomputed import not_recomputed_in_words
    from bend_hf.runs.verify import DataPlace, Opened, verify_run

    names = {item.name for item in fields(DataPlace)}
    if unused := sorted(set(values) - names):
        raise ConfigError(
            f"--{unused[0].replace('_', '-')} is for tasks; records say how their data were read, and "
            "--data, --bed, --labels and --genome say where they are now"
        )
    place, status = DataPlace(**values), 0
    opened: Opened = {}
    for path in find_records(records_of(places)):
        try:
            verified = verify_run(path, place, with_data=with_data, opened=opened)
        except BendError as error:
            print(f"{path}: NOT verified\n  {error}")
            status = _NOT_VERIFIED
            continue
        print(verified.in_words())
        status = max(status, _NOT_VERIFIED if verified.problems else 0)
    print(
        f"Taken as they are, as nothing at hand gives them again:\n{textwrap.indent(not_recomputed_in_words(), '  ')}"
    )
    return status


COMMANDS = (
    Command(
        key="verify",
        text="check finished runs against their predictions and data, or a built folder against its files",
        example="bend-hf verify results",
        add_flags=_add_flags,
        run=_run,
    ),
)
