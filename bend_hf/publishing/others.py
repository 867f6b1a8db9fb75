"""What ``--with`` shows next to one's own results: published scores, and the records of shared stores.

>>> others_of(["published", "hub:someone"])
OtherResults(published=True, stores=('someone/bend_results',))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.publishing.results_store import PREFIX, store_name

PUBLISHED: Final = "published"


@dataclass(frozen=True, kw_only=True)
class OtherResults:
    """Results of others.

    Attributes:
        published: Whether to show the scores that others report.
        stores: ``OWNER/NAME`` of the shared stores on the Hub whose records to show.
    """

    published: bool = False
    stores: tuple[str, ...] = ()


NO_OTHERS: Final = OtherResults()


def others_of(values: Sequence[str]) -> OtherResults:
    """Parse the values of ``--with``.

    Raises:
        ConfigError: A value is unknown, or the Hub takes no repository of that name.
    """
    stores = [value for value in values if value.startswith(PREFIX)]
    for value in values:
        if value not in (PUBLISHED, *stores):
            raise ConfigError(
                f"--with {value!r}; expected {PUBLISHED!r} or hub:OWNER/NAME. {did_you_mean(value, [PUBLISHED])}"
            )
    return OtherResults(published=PUBLISHED in values, stores=tuple(dict.fromkeys(map(store_name, stores))))
