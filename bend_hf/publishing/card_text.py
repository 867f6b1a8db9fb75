r"""Put the text of a model card into a card that is there already, and lose nothing that others wrote.

The part of bend_hf stands between two comments, and text outside them is kept. A third comment at its end holds a hash
of what bend_hf wrote, so that text that others wrote between the marks is not lost either. Metadata are merged name by
name, and the scores in ``model-index`` entry by entry, as the score files are.

>>> print(merge_card(f"---\nlicense: mit\n---\n\n{marked('# New')}", "My model.\n", None, "a card"))
---
license: mit
---
My model.
<BLANKLINE>
<!-- bend_hf: begin; write outside these marks, what is between them is replaced -->
<BLANKLINE>
# New
<BLANKLINE>
<!-- bend_hf: wrote 705693b42077 -->
<BLANKLINE>
<!-- bend_hf: end -->
<BLANKLINE>
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import member
from bend_hf.publishing.yaml_text import object_of, with_keys
from bend_hf.types import Json

ScoreKey: TypeAlias = tuple[str, ...]

BEGIN: Final = "<!-- bend_hf: begin; write outside these marks, what is between them is replaced -->"
END: Final = "<!-- bend_hf: end -->"

_INDEX: Final = "model-index"
_METADATA: Final = re.compile(r"\A(\ufeff?\s*---[ \t]*\r?\n)(.*?)^(---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)
_BEGIN_LINE: Final = re.compile(r"^<!-- bend_hf: begin\b.*-->[ \t]*\r?$", re.MULTILINE)
_END_LINE: Final = re.compile(r"^<!-- bend_hf: end -->[ \t]*\r?$", re.MULTILINE)
_WRITTEN: Final = re.compile(r"^<!-- bend_hf: wrote ([0-9a-f]{12}) -->[ \t]*$", re.MULTILINE)
_REPO_IN_EXAMPLE: Final = re.compile(r'load_head\("[^"]*"')  # is filled in after the hash was taken
_EARLIER_TITLE: Final = re.compile(r"^# .+ on BEND\r?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class CardText:
    """The parts of a card.

    Attributes:
        opening: The rule before the metadata; empty without metadata.
        metadata: YAML.
        closing: The rule after the metadata.
        before: Text before the part of bend_hf; all of it if there is no such part.
        section: The part of bend_hf with its marks; None without marks.
        after: Text after it.
    """

    opening: str
    metadata: str
    closing: str
    before: str
    section: str | None
    after: str

    @property
    def own_text(self) -> str:
        """What stands outside the marks."""
        return f"{self.before.strip()}\n{self.after.strip()}".strip().replace("\r\n", "\n")

    @property
    def was_edited(self) -> bool:
        """Whether text between the marks was changed since bend_hf wrote it; False if earlier releases wrote it."""
        inner = (self.section or "").replace("\r\n", "\n").partition("\n")[2].rpartition("\n")[0]
        written = _WRITTEN.search(inner)
        return written is not None and written[1] != _digest(_WRITTEN.sub("", inner))

    @property
    def is_of_an_earlier_release(self) -> bool:
        """Whether bend_hf wrote the whole card, before it marked its part."""
        written = re.search(r"^library_name: ['\"]?bend_hf\b", self.metadata, re.MULTILINE)
        return self.section is None and bool(written) and bool(_EARLIER_TITLE.search(self.before))


def marked(section: str) -> str:
    """The part of bend_hf between its marks, with the comment that says what was written."""
    content = section.strip()
    return f"{BEGIN}\n\n{content}\n\n<!-- bend_hf: wrote {_digest(content)} -->\n\n{END}\n"


def _digest(content: str) -> str:
    text = _REPO_IN_EXAMPLE.sub("load_head(", content.strip())
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def split_card(text: str, name: str) -> CardText:
    """Take a card apart.

    Args:
        text: The whole card.
        name: Name of the card in messages.

    Raises:
        RecordError: Its marks are not one pair.
    """
    found = _METADATA.match(text)
    opening, metadata, closing = found.groups() if found else ("", "", "")
    body = text[found.end() :] if found else text
    begins, ends = list(_BEGIN_LINE.finditer(body)), list(_END_LINE.finditer(body))
    parts: dict[str, str | None] = {"before": body, "section": None, "after": ""}
    if begins or ends:
        if len(begins) != 1 or len(ends) != 1 or ends[0].start() < begins[0].end():
            raise RecordError(
                f"{name} holds {len(begins)} begin marks and {len(ends)} end marks of bend_hf; expected one pair. "
                "Restore or remove them there."
            )
        start, end = begins[0].start(), ends[0].end()
        parts = {"before": body[:start], "section": body[start:end], "after": body[end:]}
    return CardText(opening=opening, metadata=metadata, closing=closing, **parts)  # type: ignore[arg-type]


def merge_card(ours: str, theirs: str, base: str | None, name: str) -> str:
    """Merge a new card into the one that is there.

    Args:
        ours: The new card, with its marks.
        theirs: The card that is there.
        base: The card that bend_hf wrote there the last time; None if that is not known.
        name: Name of the card that is there, in messages.

    Raises:
        RecordError: The metadata or marks of the card that is there are damaged, text between its marks was edited, it
            holds scores of an earlier release that the new card lacks, or both cards hold different text of the user.
    """
    new, old = split_card(ours, "the new card"), split_card(theirs, name)
    before = split_card(base, "the earlier card") if base is not None else None
    if new.section is None:
        raise RecordError("the new card lacks the marks of bend_hf; write it again with 'bend-hf card'")
    if old.was_edited:
        raise RecordError(
            f"{name} was edited between the marks of bend_hf, and that text would be lost. Move it outside of the "
            "marks, and remove what is between them; it is written again."
        )
    metadata = with_keys(
        old.metadata,
        _merged_metadata(
            object_of(new.metadata, "the new card"),
            object_of(old.metadata, name),
            object_of(before.metadata, "the earlier card") if before else {},
            name,
        ),
        name,
    )
    opening, closing = old.opening or "---\n", old.closing or "---\n"
    return f"{opening}{metadata.rstrip()}\n{closing}{merged_body(new, old, name)}"


def merged_body(new: CardText, old: CardText, name: str) -> str:
    """The text after the metadata: our part in the place of the earlier one, and what others wrote around it.

    Raises:
        RecordError: The card that is there holds scores of an earlier release that the new one lacks, or both hold
            different text of the user.
    """
    if old.is_of_an_earlier_release:
        lost = sorted(set(_scores(old, name)) - set(_scores(new, "the new card")))
        if lost:
            raise RecordError(
                f"{name} was written by an earlier release and holds scores that the new card lacks, such as "
                f"{lost[0][-1]} of {lost[0][1]}. Write the card from the records of all its scores."
            )
        return f"{new.before}{new.section}{new.after}"
    if new.own_text and old.own_text and new.own_text != old.own_text:
        raise RecordError(
            f"{name} and the new card hold different text outside the marks of bend_hf, and one would be lost. Make "
            "them equal, or remove that text from the new card."
        )
    if not old.own_text:
        return f"{new.before if new.own_text else chr(10)}{new.section}{new.after}"
    if old.section is None:
        return f"{old.before.rstrip()}\n\n{new.section}\n"
    return f"{old.before}{new.section}{old.after}"


def _merged_metadata(
    new: Mapping[str, Json], old: Mapping[str, Json], before: Mapping[str, Json], name: str
) -> dict[str, Json]:
    """What the card is to say: what we say now, and of what it says what we did not say before."""
    found: dict[str, Json] = {}
    for key in dict.fromkeys([*old, *new]):
        here, there, said = new.get(key), old.get(key), before.get(key)
        if key == _INDEX:
            value: Json = _merged_index(here, there, said, name)
        elif isinstance(here, list) or (here is None and isinstance(said, list)):
            listed = there if isinstance(there, list) else [] if there is None else [there]
            mine, earlier = _as_list(here), _as_list(said)
            kept = [one for one in listed if one in mine or one not in earlier]
            value = [*kept, *(one for one in mine if one not in kept)] or None
        else:
            value = here if there is None or (key in before and there == said) else there
        if value is not None:
            found[key] = value
    return found


def _as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _merged_index(new: Json, old: Json, before: Json, name: str) -> Json:
    """The scores of others with ours: in the place of our earlier ones, or after them."""
    if old is None:
        return new
    results = [result for model in _models(new, "the new card") for result in model["results"]]
    ours = {key: result for result in results for key in _keys(result)}
    stale = {key for model in _models(before, "the earlier card") for one in model["results"] for key in _keys(one)}
    models, placed = list[Json](), list[Json]()
    for model in _models(old, name):
        kept = list[Json]()
        for result in model["results"]:
            metrics = [metric for metric in _metrics(result) if _key(result, metric) not in ours.keys() | stale]
            again = [ours[key] for key in _keys(result) if key in ours]
            for one in again:
                if not any(one is other for other in placed):
                    placed.append(one)
                    kept.append(one)
            if len(metrics) == len(_metrics(result)):
                kept.append(result)
            elif metrics:
                kept.append({**result, "metrics": metrics})
        if kept or not model["results"]:
            models.append({**model, "results": kept})
    further = [one for one in results if not any(one is other for other in placed)]
    if further and models and isinstance(models[0], dict):
        models[0]["results"] = [*_as_list(models[0]["results"]), *further]
    return models or new


def _models(index: Json, name: str) -> list[dict[str, Any]]:
    """The models of a ``model-index``.

    Raises:
        RecordError: It has another form than the Hub's.
    """
    models = index if isinstance(index, list) else [None]
    ok = all(
        isinstance(model, dict)
        and isinstance(results := model.get("results"), list)
        and all(isinstance(one, dict) and isinstance(one.get("metrics"), list) for one in results)
        for model in models
    )
    if index is None:
        return []
    if not ok:
        raise RecordError(
            f"{_INDEX} of {name} is not a list of models, each with a list of results with metrics; correct it there"
        )
    return [dict(model) for model in models if isinstance(model, dict)]


def _metrics(result: Mapping[str, Json]) -> list[Json]:
    return _as_list(result.get("metrics"))


def _key(result: Mapping[str, Json], metric: Json) -> ScoreKey:
    task, dataset = result.get("task"), result.get("dataset")
    facts = [member(task, "type"), *(member(dataset, name) for name in ("type", "config", "split"))]
    return tuple(map(str, [*facts, member(metric, "type"), member(metric, "name")]))


def _keys(result: Mapping[str, Json]) -> Iterator[ScoreKey]:
    for metric in _metrics(result):
        yield _key(result, metric)


def _scores(card: CardText, name: str) -> dict[ScoreKey, Json]:
    return {
        _key(result, metric): member(metric, "value")
        for model in _models(object_of(card.metadata, name).get(_INDEX), name)
        for result in model["results"]
        for metric in _metrics(result)
    }


def changed_scores(card: CardText, expected: CardText, name: str) -> Iterator[tuple[ScoreKey, Json, Json]]:
    """Yield the scores of a card's metadata that differ from those that are expected: name, found, expected."""
    found = _scores(card, name)
    for key, value in _scores(expected, name).items():
        if found.get(key) != value:
            yield key, found.get(key), value
