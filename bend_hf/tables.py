"""Text from records and other files, made safe to stand in Markdown, and numbers as cards print them.

>>> escaped("a|b <script>")
'a&#124;b &lt;script&gt;'
>>> number(0.79558), number(None)
('0.7956', 'undefined')
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bend_hf.errors import RecordError
from bend_hf.types import Json

_SIGNS: Final = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "`": "&#96;",
    "*": "&#42;",
    "[": "&#91;",
    "]": "&#93;",
    "{": "&#123;",
    "}": "&#125;",
    "\\": "&#92;",
}


def escaped(text: object) -> str:
    """One line of Markdown that shows the text as it is, whatever it holds."""
    line = re.sub(r"\s+", " ", str(text)).strip()
    return "".join(_SIGNS.get(sign, sign) for sign in line)


def number(value: Json) -> str:
    """A score with four decimals, or ``undefined``."""
    return f"{value:.4f}" if isinstance(value, int | float) and not isinstance(value, bool) else "undefined"


def metric_title(metric: str) -> str:
    """A metric as papers write it."""
    return {"mcc": "MCC", "auroc": "AUROC", "auprc": "AUPRC", "pearsonr": "Pearson r", "spearmanr": "Spearman r"}.get(
        metric, metric
    )


def whole(value: Json) -> str:
    """A count with commas, or ``not recorded``."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "not recorded"


def n_bytes(value: Json) -> str:
    """A size in the unit that fits, or ``not recorded``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "not recorded"
    size = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError


def quoted(text: str) -> str:
    """Text as a JSON string, which is a YAML string too."""
    return json.dumps(text, ensure_ascii=False)


def render(template: Path, fields: Mapping[str, Any], *, html: bool = False) -> str:
    """Fills a Jinja template; a field that is missing is an error, not an empty place.

    Args:
        template: The file.
        fields: What it may speak of.
        html: Whether everything that is not marked safe is escaped for HTML.

    Raises:
        RecordError: The template asks for a field that is not given.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "md": escaped,
        "number": number,
        "whole": whole,
        "bytes": n_bytes,
        "quoted": quoted,
        "metric": metric_title,
    }
    try:
        return environment.from_string(template.read_text(encoding="utf-8")).render(**fields)
    except jinja2.UndefinedError as error:
        raise RecordError(f"the template {template.name} asks for what is not given ({error})") from error
