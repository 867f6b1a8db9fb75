"""Names of the Hub: a dataset at a commit.

>>> DatasetRef(repo="bend/gene_finding", revision="0" * 40).repo
'bend/gene_finding'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bend_hf.errors import RecordError

_REPO: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class DatasetRef:
    """A dataset repository at a commit.

    Raises:
        RecordError: Not ``owner/name``, or not a full commit.
    """

    repo: str
    revision: str

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise RecordError(f"dataset id {self.repo!r}; expected owner/name, as on the Hub")
        if not _COMMIT.fullmatch(self.revision):
            raise RecordError(f"revision {self.revision!r} of {self.repo}; expected a commit of 40 hexadecimal digits")
