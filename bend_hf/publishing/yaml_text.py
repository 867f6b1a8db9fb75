r"""Change a few entries of a YAML text and keep the bytes of all others, with their comments and quotes.

>>> with_keys("license: mit  # mine\ntags: [a]\n", {"license": "mit", "tags": ["a", "b"], "task": "x"}, "a card")
'license: mit  # mine\ntags:\n- a\n- b\ntask: x\n'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bend_hf.errors import RecordError
from bend_hf.types import Json

if TYPE_CHECKING:
    import yaml


def dumped(content: Json) -> str:
    """YAML of a value, as cards and score files of this package hold it."""
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
    return text


def object_of(text: str, name: str) -> dict[str, Json]:
    """The object that a YAML text holds; empty for an empty text.

    Args:
        text: The YAML.
        name: Name of the text in messages.

    Raises:
        RecordError: The text is not YAML, or holds something else.
    """
    import yaml

    try:
        body = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecordError(
            f"the metadata of {name} are not YAML ({type(error).__name__}); correct them there"
        ) from error
    if body is not None and not (isinstance(body, dict) and all(isinstance(key, str) for key in body)):
        raise RecordError(f"the metadata of {name} hold {type(body).__name__}; expected names with values")
    return body or {}


def with_keys(text: str, wanted: Mapping[str, Json], name: str) -> str:
    """Give a YAML object these entries: write those that differ, remove those that are missing, keep the rest.

    Args:
        text: The YAML of an object, or nothing.
        wanted: All its entries.
        name: Name of the text in messages.

    Raises:
        RecordError: The text is not YAML, or holds something else.
    """
    import yaml

    there = object_of(text, name)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pieces, at = list[str](), 0
    for key, value in root.value if root is not None else []:
        known = key.value in there
        if known and key.value in wanted and there[key.value] == wanted[key.value]:
            continue
        pieces.append(text[at : key.start_mark.index])
        at = max(content_ends(value), default=value.end_mark.index)
        if known and key.value in wanted:
            pieces.append(dumped({key.value: wanted[key.value]}).rstrip())
        else:
            at = text.find("\n", at) + 1 or len(text)
    made = "".join([*pieces, text[at:]])
    further = {key: value for key, value in wanted.items() if key not in there}
    if further:
        made += ("\n" if made and not made.endswith("\n") else "") + dumped(further)
    if not _holds(made, wanted):  # an object on one line, an anchor, or a merged one
        made = dumped(dict(wanted))
    return made


def _holds(text: str, wanted: Mapping[str, Json]) -> bool:
    import yaml

    try:
        return bool(yaml.safe_load(text) == dict(wanted))
    except (yaml.YAMLError, ValueError):
        return False


def content_ends(node: yaml.Node) -> Iterator[int]:
    """Where the scalars and the one-line collections of a node end; a block collection ends after its comments."""
    if isinstance(node.value, str) or node.flow_style:
        yield node.end_mark.index
        return
    for child in node.value:
        for one in child if isinstance(child, tuple) else (child,):
            yield from content_ends(one)
