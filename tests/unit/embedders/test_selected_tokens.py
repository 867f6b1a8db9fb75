"""Hidden states and scores at selected tokens equal those of the complete forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bend_hf.embedders import load_embedder
from bend_hf.embedders.networks.selected_tokens import hidden_at
from tests.fake_checkpoints import make_tiny

KNOWN = ("nt_transformer_human_ref", "nt_transformer_v2_50m", "dnabert6", "grover")
OTHERS = ("dnabert2", "hyenadna-tiny-1k")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [7, 5, 8, 6, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
TOKENS = torch.tensor([[4, 1], [3, 0]])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("key", [*KNOWN, *OTHERS])
def test_some_tokens_are_those_of_the_whole_forward(key: str, padded: bool, tmp_path: Path) -> None:
    embedder = load_embedder(key, checkpoint=make_tiny(key, tmp_path / key), random_init=True, device="cpu")
    embedder.runner()
    assert embedder.model is not None
    if key in KNOWN:  # float64, so that nothing but the arithmetic's order may differ; HyenaDNA's filter is float32
        embedder.model = embedder.model.double()
    if padded:
        ids, mask = torch.where(MASK.bool(), IDS, embedder.pad_id), MASK
    else:
        ids, mask = IDS, None
    at = TOKENS[..., None]
    with torch.inference_mode():
        for layer in (-1, 1):
            states = embedder._hidden(ids, mask, layer)
            wanted = states.gather(1, at.expand(-1, -1, states.shape[2]))
            found = embedder._hidden_at(ids, mask, layer, TOKENS)
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
            everywhere = embedder._hidden_at(ids, mask, layer, None)
            kept = MASK.bool() if padded else torch.ones_like(MASK, dtype=torch.bool)
            torch.testing.assert_close(everywhere[kept], states[kept], rtol=1e-6, atol=1e-9)
        scores = embedder._logits(ids, mask)
        likely = embedder._logits_at(ids, mask, TOKENS)
    torch.testing.assert_close(likely, scores.gather(1, at.expand(-1, -1, scores.shape[2])), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("key", "known"), [*((key, True) for key in KNOWN), *((key, False) for key in OTHERS)])
def test_the_last_layer_computes_the_others_only_where_the_network_is_not_known(
    key: str, known: bool, tmp_path: Path
) -> None:
    embedder = load_embedder(key, checkpoint=make_tiny(key, tmp_path / key), random_init=True, device="cpu")
    embedder.runner()
    with torch.inference_mode():
        found = hidden_at(embedder.model.base_model, IDS, None, -1, TOKENS)  # type: ignore[union-attr,arg-type]
    assert (found is not None) == known
    if found is not None:
        assert found.shape == (2, 2, embedder.width)
