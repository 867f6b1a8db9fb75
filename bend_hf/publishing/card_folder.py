"""Write the folder of a model card, check it before a push, and merge it with what its repository holds.

    card/README.md            the card
    card/bend_records.json    the records that it was written from, without paths of this machine
    card/.eval_results/       the Hub's score files, of scores that may be published

With the records at hand, a card of today and one of another day become one card: a score replaces an earlier one of
the same dataset, task, head and protocol, and every other one stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bend_hf.config import RunConfig, flags_of
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.evidence import check_without_predictions
from bend_hf.evaluation.record import ResultRecord
from bend_hf.files import parse_json, write_text
from bend_hf.publishing.card_text import changed_scores, merge_card, split_card
from bend_hf.publishing.eval_results import (
    FOLDER,
    check_eval_text,
    eval_result_files,
    eval_task_id,
    values_of,
)
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.models import model_id, models_of
from bend_hf.publishing.publishable import reasons_not_to_publish
from bend_hf.publishing.results import group_records
from bend_hf.types import Json
from bend_hf.variants.config import VariantRun

_WRITE_AGAIN: Final = "write the card again with 'bend-hf card'"
_CORRECT_THERE: Final = "restore an earlier version of it there, or remove it there to start a new card"
RECORDS_FILE: Final = "bend_records.json"
CARD_FILE: Final = "README.md"


@dataclass(frozen=True, kw_only=True)
class CardRecords:
    """What a card is written from.

    Attributes:
        records: Records of one model.
        controls: Records of controls, and of other models to compare with on the same items.
    """

    records: tuple[ResultRecord, ...]
    controls: tuple[ResultRecord, ...] = ()

    @classmethod
    def from_text(cls, text: str, name: str, remedy: str = _WRITE_AGAIN) -> CardRecords:
        """Read the content of ``bend_records.json``, and check each record as far as it goes without predictions.

        Args:
            text: The content.
            name: Name of the file in messages.
            remedy: What to do if it is damaged.

        Raises:
            RecordError: It holds something else, one of the records is malformed, or a value is outside of its range or
                its interval.
        """
        try:
            body = parse_json(text)
            found = {key: tuple(ResultRecord.from_json(one) for one in body[key]) for key in ("records", "controls")}
            if not found["records"]:
                raise ValueError("no record")
            for key, records in found.items():
                for number, record in enumerate(records, start=1):
                    check_without_predictions(record, f"number {number} of its {key}, of {record.task}")
        except (ValueError, KeyError, TypeError, RecursionError, RecordError) as error:
            raise RecordError(f"{name} does not hold the records of a card ({error}); {remedy}") from error
        return cls(**found)

    @property
    def model(self) -> str:
        """Name of the model, as the card has it."""
        return group_records(self.records)[0].model

    @property
    def keys(self) -> set[tuple[str, ...]]:
        """Names of the scores: those of one name replace each other."""
        return {_key(record) for record in self.records}

    def card(self) -> str:
        """The card."""
        return model_card(self.records, self.controls)

    def score_files(self, source_url: str | None = None) -> dict[str, str]:
        """The Hub's score files, of scores that may be published."""
        results = [result for result in group_records(self.records) if not result.reasons_not_to_publish]
        return eval_result_files(results, source_url=source_url)

    def text(self) -> str:
        """The content of ``bend_records.json``."""
        body: dict[str, Json] = {
            "records": [record.as_json() for record in self.records],
            "controls": [record.as_json() for record in self.controls],
        }
        return json.dumps(body, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def with_earlier(self, earlier: CardRecords, name: str) -> CardRecords:
        """These records, and those of an earlier card whose scores these do not replace.

        Raises:
            RecordError: The earlier card is of another model.
        """
        models = models_of([*earlier.records, *self.records])
        there, here = (models[model_id(card.records[0])] for card in (earlier, self))
        if there != here:
            raise RecordError(
                f"{name} holds the card of {there.label!r}, and this one is of {here.label!r}; give another --repo"
            )
        kept = [record for record in earlier.records if _key(record) not in self.keys]
        return CardRecords(
            records=tuple(_sorted([*kept, *self.records])),
            controls=tuple(_sorted(_unique([*earlier.controls, *self.controls]))),
        )


def _key(record: ResultRecord) -> tuple[str, ...]:
    return str(record.data.get("repo")), eval_task_id(record.task, record.probe, record.protocol)


def _unique(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    return list({json.dumps(record.as_json(), sort_keys=True): record for record in records}.values())


def _sorted(records: Iterable[ResultRecord]) -> list[ResultRecord]:
    return sorted(records, key=lambda record: (record.created_at or "", json.dumps(record.as_json(), sort_keys=True)))


def _without_paths(record: ResultRecord) -> ResultRecord:
    """The record without the settings that name paths of this machine."""
    config = {name: value for name, value in record.config.items() if name not in _local_settings()}
    return replace(record, config=config)


def _local_settings() -> frozenset[str]:
    flags = [*flags_of(RunConfig).items(), *flags_of(VariantRun).items()]
    return frozenset(name for name, info in flags if not info.in_command)


def write_card(
    records: Sequence[ResultRecord],
    out: Path,
    *,
    controls: Sequence[ResultRecord] = (),
    source_url: str | None = None,
) -> list[Path]:
    """Write the folder of a card. What others wrote in its ``README.md`` stays.

    Args:
        records: Records of one model.
        out: Folder to write, laid out like the repository on the Hub.
        controls: Records of controls, and of other models to compare with on the same items.
        source_url: Address of the records.

    Returns:
        The files.

    Raises:
        RecordError: The records are of several models, the card that is there is damaged, or the folder cannot be
            written.
    """
    made = CardRecords(
        records=tuple(_sorted(map(_without_paths, records))), controls=tuple(_sorted(map(_without_paths, controls)))
    )
    text, files = made.card(), made.score_files(source_url)
    before = _records_there(out)
    if (out / CARD_FILE).is_file():
        there = _read(out / CARD_FILE)
        if before or not split_card(there, str(out / CARD_FILE)).is_of_an_earlier_release:
            text = merge_card(text, there, before.card() if before else None, str(out / CARD_FILE))
    stale = set(before.score_files() if before else ()) - set(files)
    for name in sorted(stale):  # of the card that this one replaces
        (out / name).unlink(missing_ok=True)
    files = {CARD_FILE: text, RECORDS_FILE: made.text(), **files}
    return [write_text(out / name, content) for name, content in files.items()]


def _records_there(folder: Path) -> CardRecords | None:
    path = folder / RECORDS_FILE
    return CardRecords.from_text(_read(path), str(path)) if path.is_file() else None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read as UTF-8 text ({error}); correct or remove it") from error


def read_card(folder: Path) -> tuple[CardRecords, dict[str, Path]]:
    """Read the folder of a card, and check that its scores are those of its records.

    Returns:
        The records, and the score files by their path in the repository.

    Raises:
        ConfigError: The folder holds no card.
        RecordError: The card or a score file differs from the records.
    """
    readme = folder / CARD_FILE
    if not readme.is_file():
        raise ConfigError(f"{folder} holds no {CARD_FILE}; run 'bend-hf card' first")
    records = _records_there(folder)
    if records is None:
        raise ConfigError(f"{folder} holds no {RECORDS_FILE}; write the card again with 'bend-hf card'")
    expected, found = split_card(records.card(), "the card"), split_card(_read(readme), str(readme))
    if found.section is None or found.section.replace("\r\n", "\n") != expected.section:
        raise RecordError(
            f"{readme} differs from its records between the marks of bend_hf. Move text of your own outside of the "
            "marks, remove what is between them, and write the card again with 'bend-hf card'."
        )
    for key, _, _ in changed_scores(found, expected, str(readme)):
        raise RecordError(
            f"{readme} states another {key[-1]} of {key[1]} in model-index than its records; write it again with "
            "'bend-hf card'"
        )
    return records, _score_files(folder, records.score_files())


def _score_files(folder: Path, expected: Mapping[str, str]) -> dict[str, Path]:
    for path in sorted((folder / FOLDER).glob("bend_*.yaml")):
        if f"{FOLDER}/{path.name}" not in expected:
            raise RecordError(f"{path} holds scores that the card does not; remove it, or write the card again")
    files = {}
    for name, text in expected.items():
        path = folder / name
        if not path.is_file():
            raise RecordError(f"{path} is missing; write the card again with 'bend-hf card'")
        there = _read(path)
        check_eval_text(there, name)
        if values_of(there) != values_of(text):
            raise RecordError(f"{path} states other scores than the records; write the card again with 'bend-hf card'")
        files[name] = path
    return files


@dataclass(frozen=True, kw_only=True)
class RemoteCard:
    """What a repository holds of a card; None for a file that is not there."""

    readme: str | None
    records: str | None


def merged_with(remote: RemoteCard, readme: str, records: str, name: str) -> dict[str, str]:
    """The card and its records, with what a repository holds of other days and of others.

    Args:
        remote: The files of the repository.
        readme: Our card.
        records: Our records.
        name: Name of the repository in messages.

    Raises:
        RecordError: The repository holds the card of another model, or a file of it is damaged or was edited.
    """
    made, earlier = CardRecords.from_text(records, RECORDS_FILE), None
    if remote.records is not None:
        earlier = CardRecords.from_text(remote.records, f"{RECORDS_FILE} of {name}", _CORRECT_THERE)
        _check_earlier(earlier, remote, name)
        together = made.with_earlier(earlier, name)
        if together.keys != made.keys or together.controls != made.controls:
            made = together
            readme = merge_card(made.card(), readme, readme, CARD_FILE)
    if remote.readme is not None:
        readme = merge_card(readme, remote.readme, earlier.card() if earlier else None, f"{CARD_FILE} of {name}")
    return {CARD_FILE: readme, RECORDS_FILE: made.text()}


def _check_earlier(earlier: CardRecords, remote: RemoteCard, name: str) -> None:
    """Check the records in a repository before their scores are shown again.

    Raises:
        RecordError: One may not be published, or its card states another value.
    """
    for record in earlier.records:
        if reasons := reasons_not_to_publish(record):
            raise RecordError(
                f"{RECORDS_FILE} of {name} holds a score of {record.task} that may not be published "
                f"({'; '.join(reasons)}); {_CORRECT_THERE}"
            )
    if remote.readme is None:
        return
    there = split_card(remote.readme, f"{CARD_FILE} of {name}")
    for key, stated, value in changed_scores(there, split_card(earlier.card(), "the earlier card"), name):
        if stated is not None:
            raise RecordError(
                f"{CARD_FILE} of {name} states {stated} for {key[-1]} of {key[1]} in model-index, but its "
                f"{RECORDS_FILE} gives {value}; one of both was edited. Restore it there."
            )
