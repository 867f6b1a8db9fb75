"""A run's configuration from a TOML file: the same names as the flags, checked before anything starts.

    # run.toml, for: accelerate launch -m bend_hf.train --config run.toml
    task = ["gene_finding"]
    model = "dnabert6"
    learning-rate = 0.001

>>> check_value("epochs", 3, Kind(base=int))
3
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bend_hf.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a field holds.

    Attributes:
        base: Type of a value.
        choices: Words that a text is limited to; empty for no limit.
        several: Whether it holds a list of values.
    """

    base: type
    choices: tuple[str, ...] = ()
    several: bool = False


def read_toml(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of a file, by field.

    Args:
        path: The file; its keys are written with ``-`` as the flags are, or with ``_``.
        kinds: The kind of each field there is.

    Raises:
        ConfigError: The file cannot be read, a key is no field, or a value is not of its kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read as TOML ({error}); mend the file or the path") from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in kinds:
            known = [known.replace("_", "-") for known in kinds]
            raise ConfigError(f"{path}: unknown key {key!r}; {did_you_mean(key.replace('_', '-'), known)}")
        if name in values:
            raise ConfigError(f"{path}: {key!r} is given twice, with - and with _; keep one")
        try:
            values[name] = check_value(key, value, kinds[name])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return values


def check_value(key: str, value: Any, kind: Kind) -> Any:
    """The value as its field takes it.

    Raises:
        ConfigError: It is of another kind.
    """
    if kind.several:
        each = value if isinstance(value, list) else [value]
        return tuple(_check_one(key, item, kind) for item in each)
    return _check_one(key, value, kind)


def _check_one(key: str, value: Any, kind: Kind) -> Any:
    if kind.base is Path and isinstance(value, str):
        return Path(value)
    if kind.base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind.base) or (isinstance(value, bool) and kind.base is not bool):
        raise ConfigError(f"{key} = {value!r} is {type(value).__name__}; expected {kind.base.__name__}")
    if kind.choices and value not in kind.choices:
        raise ConfigError(f"unknown {key} {value!r}; {did_you_mean(str(value), list(kind.choices))}")
    return value
