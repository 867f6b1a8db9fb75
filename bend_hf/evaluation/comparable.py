"""Which records may be compared: the same task, protocol and data, and every item scored.

>>> from bend_hf.types import Json
>>> one: dict[str, Json] = {"files": {"genome": {"sha256": "a" * 64}}}
>>> list(_other_data(one, {"files": {"genome": {"sha256": "b" * 64}}}))
[('data.files.genome.sha256', 'aaaaaaaaaaaa', 'bbbbbbbbbbbb')]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bend_hf.errors import RecordError
from bend_hf.evaluation.identity import CONTENT
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.types import Json


def check_comparable(records: Mapping[str, ResultRecord]) -> None:
    """Check that the scores of some records may be compared.

    Args:
        records: Records by the name of their model.

    Raises:
        RecordError: Two records differ; the message names the field and both values.
    """
    named = list(records.items())
    for name, other in named[1:]:
        first, one = named[0]
        if (difference := next(differences(one, other), None)) is not None:
            place, mine, theirs = difference
            raise RecordError(
                f"{first} and {name} cannot be compared: {place} is {mine} and {theirs}; compare runs of one task, "
                "protocol and data"
            )


def differences(one: ResultRecord, other: ResultRecord) -> Iterator[tuple[str, str, str]]:
    """Yield field and both values of what keeps two records from being compared."""
    pairs: dict[str, tuple[Json, Json]] = {
        "task": (one.task, other.task),
        "protocol": (one.protocol, other.protocol),
    }
    yield from _unequal(pairs)
    yield from _other_data(one.data, other.data)
    counts = ("scored", "items")
    yield from _unequal({f"coverage.{name}": (one.coverage.get(name), other.coverage.get(name)) for name in counts})
    if one.coverage.get("identity") == other.coverage.get("identity") == CONTENT:
        yield from _unequal(
            {"coverage.item_sha256": (one.coverage.get("item_sha256"), other.coverage.get("item_sha256"))}
        )


def _other_data(one: Mapping[str, Json], other: Mapping[str, Json]) -> Iterator[tuple[str, str, str]]:
    """What differs in the data: the items of each split, or, if a record does not hold their hashes, the files.

    The same items may be written in several ways, so the hashes of the files decide only for the genome.
    """
    yield from _unequal({"data.assembly": (one.get("assembly"), other.get("assembly"))}, unknown=(None, "unknown"))
    mine, theirs = one.get("identity"), other.get("identity")
    if isinstance(mine, dict) and isinstance(theirs, dict):
        splits = sorted({*mine, *theirs}, key=lambda name: (name == "test", name))  # what was trained on, then tested
        yield from _unequal({f"data.identity.{name}": (mine.get(name), theirs.get(name)) for name in splits})
        files = ["genome"]
    else:
        named = [facts.get("files") for facts in (one, other)]
        files = sorted({name for found in named if isinstance(found, dict) for name in found})
    hashes = {name: [member(facts.get("files"), name, "sha256") for facts in (one, other)] for name in files}
    yield from _unequal({f"data.files.{name}.sha256": (found[0], found[1]) for name, found in hashes.items()})


def _unequal(pairs: Mapping[str, tuple[Json, Json]], unknown: tuple[Json, ...] = ()) -> Iterator[tuple[str, str, str]]:
    for place, (mine, theirs) in pairs.items():
        if mine != theirs and mine not in unknown and theirs not in unknown:
            yield place, _shown(mine), _shown(theirs)


def _shown(value: Json) -> str:
    text = "missing" if value is None else str(value)
    return text[:12] if len(text) == 64 else text  # the start of a hash is enough
