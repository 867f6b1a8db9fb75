"""A mix of layers is their mean, or a sum with learned weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bend_hf.errors import ConfigError
from bend_hf.training.heads.linear import LinearHead
from bend_hf.training.layer_mix import LayerMix, SideBySide, check_mixes
from tests.splits import gene_like


@pytest.mark.parametrize("learned", [False, True])
def test_equal_weights_give_the_head_on_the_mean(learned: bool) -> None:
    head, token_of_BL = LinearHead(width=4, n_outputs=2), torch.tensor([[0, 0, 1, 2, -1]])
    x_BTKD = torch.randn(1, 3, 5, 4)
    mixed = LayerMix(head, n_layers=5, learned=learned)(x_BTKD.flatten(2), token_of_BL)
    torch.testing.assert_close(mixed, head(x_BTKD.mean(2), token_of_BL))


def test_the_learned_mix_is_the_scaled_sum_by_softmax() -> None:
    head, token_of_BL = LinearHead(width=4, n_outputs=2), torch.tensor([[0, 1, 2]])
    x_BTKD, mix = torch.randn(1, 3, 2, 4), LayerMix(head, n_layers=2, learned=True)
    with torch.no_grad():
        mix.layer_logits.copy_(torch.tensor([0.0, np.log(3.0)]))  # type: ignore[union-attr]
        mix.scale.fill_(2.0)  # type: ignore[union-attr]
    assert mix.shares() == pytest.approx([0.25, 0.75])
    expected = head(2 * (0.25 * x_BTKD[:, :, 0] + 0.75 * x_BTKD[:, :, 1]), token_of_BL)
    torch.testing.assert_close(mix(x_BTKD.flatten(2), token_of_BL), expected)


def test_layers_lie_side_by_side() -> None:
    one, other = gene_like(6, seed=1).embeddings, gene_like(6, seed=1).embeddings
    rows = np.array([4, 1])
    both = SideBySide([one, other]).rows(rows)  # type: ignore[list-item]
    np.testing.assert_array_equal(both.x_BTD, np.concatenate([one.rows(rows).x_BTD] * 2, -1))  # type: ignore[attr-defined]


def test_an_unknown_mix_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown mix of layers 'max'; expected mean or scalar"):
        check_mixes(["max"])
