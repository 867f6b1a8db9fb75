r"""Put the README of a dataset, results, report or metric into its repository, and lose nothing that others wrote.

As in a model card, the part of bend_hf stands between two comments. A third comment at its end holds hashes of what
bend_hf wrote, so that the next push knows which metadata are its own, and whether its part was edited.

>>> first = marked_readme("---\ntags: [a]\n---\n\n# Data\n")
>>> merged = merge_readme(marked_readme("# Data, new\n"), first + "\nMy notes.\n", "a card")
>>> ("# Data, new\n" in merged, "# Data\n" in merged, "My notes." in merged)
(True, False, True)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import member
from bend_hf.files import parse_json
from bend_hf.publishing.card_text import BEGIN, END, CardText, merged_body, split_card
from bend_hf.publishing.yaml_text import object_of, with_keys
from bend_hf.types import Json

_WRITTEN: Final = re.compile(r"^<!-- bend_hf: wrote (\{.*\}) -->\s*$", re.MULTILINE)
_EARLIER_TITLE: Final = re.compile(r"^# (BEND: .+|BEND results|BEND report|Metric card for .+)\r?$", re.MULTILINE)
# The README that the Hub puts into a new Space.
_NEW_SPACE: Final = "Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference"
_BY_CONFIG: Final = ("configs", "dataset_info")  # lists of objects with a config_name; the second may be one object
_RUNS: Final = ("sdk", "sdk_version", "python_version", "app_file")  # without ours, the Space does not start


def marked_readme(text: str) -> str:
    """A README with its text between the marks of bend_hf, and the comment that says what was written.

    Args:
        text: A README, with or without marks; what a user wrote outside of marks stays there.
    """
    parts = split_card(text, "the README")
    if parts.section is None:
        before, content, after = "\n", parts.before.strip(), "\n"
    else:
        before, content, after = parts.before, _content(parts.section), parts.after
    written = {"text": _digest(content), "metadata": _digests(object_of(parts.metadata, "the README"))}
    note = f"<!-- bend_hf: wrote {json.dumps(written)} -->"
    section = f"{BEGIN}\n\n{content}\n\n{note}\n\n{END}"
    return f"{parts.opening}{parts.metadata}{parts.closing}{before}{section}{after}"


def merge_readme(ours: str, theirs: str, name: str) -> str:
    """Merge a README with the one that is in its place.

    Args:
        ours: The new README, as ``marked_readme`` gives it.
        theirs: The one that is there.
        name: Name of the one that is there, in messages.

    Raises:
        RecordError: Its metadata or marks are damaged, text between its marks was edited, both hold different text of
            users, or it is of an earlier release, in which text of others cannot be told from that of bend_hf.
    """
    new, old = split_card(ours, "the new README"), split_card(theirs, name)
    if old.own_text == _NEW_SPACE:
        return ours
    written = _written(old)
    if old.section is not None and written is not None and written.get("text") != _digest(_content(old.section)):
        raise RecordError(
            f"{name} was edited between the marks of bend_hf, and that text would be lost. Move it outside of the "
            "marks, or restore what was there."
        )
    if old.section is None and _EARLIER_TITLE.search(old.before):
        if _plain(old.before) != _plain(_content(new.section or "")):
            raise RecordError(
                f"{name} was written by an earlier release, which set no marks, so text of others cannot be told from "
                f"that of bend_hf. Put the lines '{BEGIN}' and '{END}' around the text of bend_hf there, or remove "
                "that text, and repeat the command."
            )
        old = CardText(
            opening=old.opening,
            metadata=old.metadata,
            closing=old.closing,
            before=new.before,
            section=new.section,
            after=new.after,
        )
    said = member(dict(written or {}), "metadata")
    metadata = _merged_metadata(
        object_of(new.metadata, "the new README"),
        object_of(old.metadata, name),
        said if isinstance(said, dict) else {},
    )
    text = with_keys(old.metadata, metadata, name)
    head = f"{old.opening or '---' + chr(10)}{text.rstrip()}\n{old.closing or '---' + chr(10)}" if metadata else ""
    return head + merged_body(new, old, name)


def _content(section: str) -> str:
    """What stands between the marks, without the comment."""
    inner = section.partition("\n")[2].rpartition("\n")[0]
    return _WRITTEN.sub("", inner.replace("\r\n", "\n")).strip()


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _written(parts: CardText) -> dict[str, Json] | None:
    """What the comment says; None without one that can be read."""
    found = _WRITTEN.search((parts.section or "").replace("\r\n", "\n"))
    try:
        body = parse_json(found[1]) if found else None
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _digests(metadata: Mapping[str, Json]) -> dict[str, Json]:
    return {
        key: [_digest(one) for one in value] if isinstance(value, list) else _digest(value)
        for key, value in metadata.items()
    }


def _merged_metadata(new: Mapping[str, Json], old: Mapping[str, Json], said: Mapping[str, Json]) -> dict[str, Json]:
    """What the metadata are to say: what we say now, and of what is there what we did not say before.

    Args:
        new: Ours.
        old: Those that are there.
        said: Hashes of ours at the last push, by key; for lists, of each entry.
    """
    found: dict[str, Json] = {}
    for key in dict.fromkeys([*old, *new]):
        here, there, before = new.get(key), old.get(key), said.get(key)
        if there is None or before == _digests({key: there})[key]:  # nobody changed it
            value = here
        elif key in _BY_CONFIG and _entries(here) is not None and _entries(there) is not None:
            value = _merged_configs(here, there, before if isinstance(before, list) else [before])
        elif isinstance(here, list) or (here is None and isinstance(before, list)):
            listed = there if isinstance(there, list) else [] if there is None else [there]
            mine, earlier = here if isinstance(here, list) else [], before if isinstance(before, list) else []
            kept = [one for one in listed if one in mine or _digest(one) not in earlier]
            value = [*kept, *(one for one in mine if one not in kept)] or None
        elif before is None and here is not None and key in _RUNS:
            value = here
        else:
            value = there
        if value is not None:
            found[key] = value
    return found


def _entries(value: Json) -> list[dict[str, Any]] | None:
    """The objects of a list, or one object; None if the value is something else."""
    listed = [] if value is None else value if isinstance(value, list) else [value]
    return [one for one in listed if isinstance(one, dict)] if all(isinstance(one, dict) for one in listed) else None


def _merged_configs(here: Json, there: Json, before: Sequence[Json]) -> Json:
    """Our configurations in the place of earlier ones of the same name, and those of others."""
    ours = {str(one.get("config_name", "default")): one for one in _entries(here) or []}
    merged: list[Json] = []
    for one in _entries(there) or []:
        name = str(one.get("config_name", "default"))
        if name in ours:
            merged.append({**one, **ours.pop(name)})
        elif _digest(one) not in before:
            merged.append(one)
    merged += list(ours.values())
    return merged[0] if len(merged) == 1 and isinstance(here, dict) else merged or None
