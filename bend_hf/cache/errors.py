"""What can go wrong with a cache that its user can mend.

>>> issubclass(CacheError, BendError)
True
"""

from __future__ import annotations

from bend_hf.errors import BendError


class CacheError(BendError):
    """A cache that cannot be made or read: a full disk, a number that does not fit, a folder that is none."""
