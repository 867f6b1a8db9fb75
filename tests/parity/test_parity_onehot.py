"""One-hot embeddings equal BEND's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bend_hf.embedders import OneHotEmbedder
from bend_hf.embedders.onehot import COLUMNS
from bend_hf.types import PROTOCOLS, ProtocolName
from tests.shared_data import GOLDEN, needs_shared


@needs_shared
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_onehot_agrees_with_bend(protocol: ProtocolName) -> None:
    recorded = json.loads((GOLDEN / "index.json").read_text())["onehot"]
    golden = np.load(GOLDEN / recorded["npz"])
    sequence = recorded["sequence"]
    assert list(COLUMNS) == recorded["order"]
    rows = OneHotEmbedder(protocol=protocol)(sequence, upsample_embeddings=True)
    np.testing.assert_array_equal(rows, golden["onehot"].reshape(len(sequence), 5))
    np.testing.assert_array_equal(rows.argmax(axis=1), golden["int"].reshape(-1))
