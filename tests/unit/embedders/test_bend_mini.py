"""bend-mini's network: k-mers, padding, selected tokens, initial weights, skip-gram objective and whitening."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bend_hf.embedders.networks.bend_mini import BendMiniConfig, BendMiniForMaskedLM, KmerTable
from bend_hf.errors import ModelError
from bend_hf.files import asset_folder

SIZES = {"kmer": 3, "table_width": 8, "side_kmers": 2, "stride": 4, "body_width": 8, "body_layers": 3}
FINE = {"detail_width": 6, "local_width": 16, "fine_width": 16, "fine_layers": 2, "around_word": 2, "around_places": 2}
# Nucleotides on either side that an embedding may depend on: three dilated layers of stride 4, and their k-mers.
REACH = 4 * (1 + 2 + 4) + 4 * 2 + 3


def small(seed: int = 0, **sizes: int) -> BendMiniForMaskedLM:
    torch.manual_seed(seed)
    model = BendMiniForMaskedLM(BendMiniConfig(**{**SIZES, **FINE, "initializer_range": 0.5, **sizes}))
    return model.eval()


MODEL = small()


def ids(length: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randint(1, 7, (batch, length), generator=torch.Generator().manual_seed(seed))


@given(length=st.integers(1, 40), padding=st.integers(0, 20), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_padding_changes_no_embedding(length: int, padding: int, seed: int) -> None:
    tokens = ids(length, seed)
    wide = torch.cat([tokens, torch.zeros(1, padding, dtype=torch.long)], dim=1)
    mask = (torch.arange(length + padding) < length).long()[None]
    with torch.no_grad():
        alone = MODEL.model(tokens).last_hidden_state
        padded = MODEL.model(wide, mask).last_hidden_state
    torch.testing.assert_close(padded[:, :length], alone, atol=1e-5, rtol=0)
    assert not padded[:, length:].any()


@given(length=st.integers(1, 40), batch=st.integers(1, 3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_scores_at_selected_tokens_are_those_of_the_forward_pass(length: int, batch: int, data: st.DataObject) -> None:
    tokens = ids(length, batch=batch)
    selected = torch.tensor(data.draw(st.lists(st.integers(0, batch * length - 1), min_size=1, max_size=9)))
    with torch.no_grad():
        scores = MODEL(tokens).logits.flatten(0, 1)[selected]
        torch.testing.assert_close(MODEL.scores_at(tokens, selected), scores, atol=1e-5, rtol=0)


def test_kmer_has_the_number_of_its_nucleotides() -> None:
    tokens = torch.tensor([[3, 4, 5, 6, 1]])  # a c g t and a masked nucleotide
    kmers = MODEL.model._kmers(torch.tensor([[0, 1, 2, 3, 4]]), before=0, behind=0)
    assert kmers.tolist() == [[0 * 25 + 1 * 5 + 2, 1 * 25 + 2 * 5 + 3, 2 * 25 + 3 * 5 + 4]]
    assert MODEL.model(tokens).last_hidden_state.shape == (1, 5, 16 + 8)


def test_only_nucleotides_within_reach_change_an_embedding() -> None:
    tokens, at = ids(2 * REACH + 21), REACH + 10
    with torch.no_grad():
        x_D = MODEL.model(tokens).last_hidden_state[0, at]
        for changed in (at - REACH - 1, at + REACH + 1):
            other = tokens.clone()
            other[0, changed] = 3 + (tokens[0, changed] - 2) % 4
            assert torch.equal(MODEL.model(other).last_hidden_state[0, at], x_D)
        for changed in range(at - 6, at + 7):
            other = tokens.clone()
            other[0, changed] = 3 if tokens[0, changed] != 3 else 4
            assert not torch.equal(MODEL.model(other).last_hidden_state[0, at], x_D), changed


def test_masked_padded_and_unknown_nucleotides_are_equal() -> None:
    tokens = ids(20)
    states = []
    for unknown in (0, 1, 2):
        other = tokens.clone()
        other[0, 7] = unknown
        with torch.no_grad():
            states.append(MODEL.model(other).last_hidden_state)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[1], states[2])


def test_initial_embeddings_of_kmers_that_share_nucleotides_are_similar() -> None:
    table = KmerTable(3, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        table.draw()
    number = {"".join(kmer): n for n, kmer in enumerate(itertools.product("acgt?", repeat=3))}
    near = (table.weight[number["acg"]] - table.weight[number["acc"]]).norm()
    far = (table.weight[number["acg"]] - table.weight[number["gta"]]).norm()
    assert near < 0.8 * far


def test_random_weights_follow_the_seed_and_residual_layers_start_small() -> None:
    model = small(seed=3, body_width=64, fine_width=64)
    assert torch.equal(model.model.table.weight, small(seed=3, body_width=64, fine_width=64).model.table.weight)
    assert not torch.equal(model.model.table.weight, small(seed=4).model.table.weight)
    torch.manual_seed(0)
    calm = BendMiniForMaskedLM(BendMiniConfig(**{**SIZES, **FINE, "body_width": 64}))
    assert calm.model.body[0].out.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_hidden_states_are_inputs_and_outputs_of_the_fine_layers() -> None:
    states = MODEL.model(ids(9), output_hidden_states=True)
    assert len(states.hidden_states) == 1 + FINE["fine_layers"]
    assert torch.equal(states.hidden_states[-1], states.last_hidden_state)


def test_saved_configuration_keeps_the_published_names(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == ["TwoScaleForMaskedLM"]
    assert saved["model_type"] == "TwoScale"
    published = json.loads((asset_folder("pretrained") / "bend-mini" / "config.json").read_text())
    assert published["architectures"] == saved["architectures"]


@pytest.mark.parametrize("wrong", [{"stride": 3}, {"vocab_size": 9}])
def test_invalid_configuration_raises(wrong: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"has stride \d and vocab_size \d; expected an even stride and 7 tokens"):
        BendMiniConfig(**wrong)


def kmer_fractions(sequence: str, k: int, begin: int, end: int) -> dict[str, float]:
    """Fractions of the k-mers that start in an interval, counted one by one."""
    kmers = [sequence[at : at + k] for at in range(max(begin, 0), min(end, len(sequence)))]
    whole = [one for one in kmers if len(one) == k and "?" not in one]
    return {one: whole.count(one) / len(whole) for one in whole}


@given(sequence=st.text("acgt?", min_size=1, max_size=40), reach=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_skip_gram_counts_kmers_on_both_sides(sequence: str, reach: int) -> None:
    model = small(around_word=2, around_places=reach)
    tokens = torch.tensor([[1 if one == "?" else 3 + "acgt".index(one) for one in sequence]] * 2)
    n_positions = -(-len(sequence) // 4)
    fractions = model.around.fractions(tokens).view(2, n_positions, 2, 4, 4)
    for position in range(n_positions):
        spans = [((position + 1 - reach) * 4, (position + 1) * 4), (position * 4, (position + reach) * 4)]
        for side, (begin, end) in enumerate(spans):
            found = {
                "acgt"[first] + "acgt"[second]: fractions[1, position, side, first, second].item()
                for first, second in itertools.product(range(4), repeat=2)
                if fractions[1, position, side, first, second] > 0
            }
            assert found == pytest.approx(kmer_fractions(sequence, 2, begin, end))


def test_skip_gram_loss_is_the_cross_entropy_of_the_kmers() -> None:
    model = small(around_word=1, around_places=1, around_weight=0.5)
    tokens = torch.tensor([[3, 3, 4, 5, 6, 6, 6, 6]])  # aacg tttt: one position each
    selected = torch.tensor([1, 7])
    with torch.no_grad():
        model.around.weight.zero_()
        model.around.bias.copy_(torch.tensor([0.5, 0.25, 0.125, 0.125] * 2).log())
        scores, cost = model.learned_at(tokens, selected)
        torch.testing.assert_close(scores, model.scores_at(tokens, selected))
    nats = 0.5 * 0.6931472 + 0.25 * 1.3862944 + 0.25 * 2.0794415  # half a, a quarter c, a quarter g
    torch.testing.assert_close(cost, 0.5 * torch.tensor([nats, 2.0794415]))


def test_whitening_equalizes_all_directions_and_keeps_the_scores() -> None:
    model = small(stride=2)
    text = [ids(400, seed, batch=4) for seed in range(3)]
    with torch.no_grad():
        before, scores = model.model(text[0]).last_hidden_state, model(text[0]).logits
        model.whiten(text)
        x_ND = torch.cat([model.model(some).last_hidden_state.flatten(0, 1) for some in text])
        assert torch.equal(model(text[0]).logits, scores)
    assert not torch.allclose(model.model(text[0]).last_hidden_state, before)
    assert x_ND.mean(dim=0).abs().max() < 1e-2
    for scale in (x_ND[:, : FINE["fine_width"]], x_ND[:, FINE["fine_width"] :]):
        variance = torch.linalg.eigvalsh(scale.T.cov())
        # the norm removes one direction; the variances of the others are near 1
        assert variance[0] < 1e-2
        assert variance[1] > 0.7
        assert variance[-1] < 1.02
    assert before.shape[-1] == model.config.hidden_size == FINE["fine_width"] + SIZES["body_width"]


def test_whitening_is_not_learned() -> None:
    model = small()
    fixed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert fixed == {f"model.even_{scale}.{part}" for scale in ("fine", "body") for part in ("centre", "map")}
    output = MODEL.model(ids(9), output_hidden_states=True)
    assert torch.equal(output.last_hidden_state, MODEL.model.embeddings_at(ids(9), None, torch.arange(9))[None])


def test_nucleotides_of_one_position_share_the_body() -> None:
    body = MODEL.model(ids(12)).last_hidden_state[0, :, FINE["fine_width"] :]
    assert torch.equal(body[0], body[3])
    assert not torch.equal(body[3], body[4])


def test_looked_up_products_are_those_of_the_layer_and_follow_its_weights() -> None:
    model, tokens = small(seed=3), ids(50, batch=2)
    for _ in range(2):
        with torch.no_grad():
            looked_up = model.model(tokens).last_hidden_state
        computed = model.model(tokens).last_hidden_state  # with gradients, nothing is looked up
        torch.testing.assert_close(looked_up, computed.detach(), atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            model.model.join.weight.mul_(-2.0)
            model.model.table.weight.add_(0.5)
