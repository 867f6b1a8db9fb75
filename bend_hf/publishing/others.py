"""What ``--with`` shows next to one's own results: published scores.

>>> others_of(["published"]).published
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bend_hf.errors import ConfigError, did_you_mean

PUBLISHED: Final = "published"


@dataclass(frozen=True, kw_only=True)
class OtherResults:
    """Results of others.

    Attributes:
        published: Whether to show the scores that others report.
    """

    published: bool = False


NO_OTHERS: Final = OtherResults()


def others_of(values: Sequence[str]) -> OtherResults:
    """Parse the values of ``--with``.

    Raises:
        ConfigError: A value is unknown.
    """
    for value in values:
        if value != PUBLISHED:
            raise ConfigError(f"--with {value!r}; expected {PUBLISHED!r}. {did_you_mean(value, [PUBLISHED])}")
    return OtherResults(published=PUBLISHED in values)
