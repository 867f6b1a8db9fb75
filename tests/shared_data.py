"""Where the real data and the golden references stand that are too large or not ours to ship.

They lie in a folder ``shared`` beside the project; a test that needs them carries ``@needs_shared``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHR20 = SHARED / "data" / "chr20"
GOLDEN = SHARED / "golden"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder ../shared with real data and golden references is not here"
)
