"""The two-scale model: k-mers, padding, rows at some places alone, and its first weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bend_hf.embedders.networks.bend_mini import BendMiniConfig, BendMiniForMaskedLM, KmerTable
from bend_hf.errors import ModelError

SIZES = {"kmer": 3, "table_width": 8, "side_kmers": 2, "stride": 4, "body_width": 8, "body_layers": 3}
ROWS = {"detail_width": 6, "local_width": 16, "fine_width": 16, "fine_layers": 2, "around_word": 2, "around_places": 2}
# Letters on either side that a nucleotide's row may depend on: three dilated layers of stride 4, and their k-mers.
REACH = 4 * (1 + 2 + 4) + 4 * 2 + 3


def small(seed: int = 0, **sizes: int) -> BendMiniForMaskedLM:
    torch.manual_seed(seed)
    model = BendMiniForMaskedLM(BendMiniConfig(**{**SIZES, **ROWS, "initializer_range": 0.5, **sizes}))
    return model.eval()


MODEL = small()


def ids(length: int, seed: int = 0, batch: int = 1) -> Tensor:
    return torch.randint(1, 7, (batch, length), generator=torch.Generator().manual_seed(seed))


@given(length=st.integers(1, 40), padding=st.integers(0, 20), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_padding_changes_no_row(length: int, padding: int, seed: int) -> None:
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
def test_rows_at_some_places_are_those_of_the_whole(length: int, batch: int, data: st.DataObject) -> None:
    tokens = ids(length, batch=batch)
    places = torch.tensor(data.draw(st.lists(st.integers(0, batch * length - 1), min_size=1, max_size=9)))
    with torch.no_grad():
        scores = MODEL(tokens).logits.flatten(0, 1)[places]
        torch.testing.assert_close(MODEL.scores_at(tokens, places), scores, atol=1e-5, rtol=0)


def test_a_kmer_has_the_number_of_its_letters() -> None:
    tokens = torch.tensor([[3, 4, 5, 6, 1]])  # a c g t and a hidden letter
    kmers = MODEL.model._kmers(torch.tensor([[0, 1, 2, 3, 4]]), before=0, behind=0)
    assert kmers.tolist() == [[0 * 25 + 1 * 5 + 2, 1 * 25 + 2 * 5 + 3, 2 * 25 + 3 * 5 + 4]]
    assert MODEL.model(tokens).last_hidden_state.shape == (1, 5, 16 + 8)


def test_letters_beyond_its_reach_do_not_change_a_row_and_letters_near_do() -> None:
    tokens, at = ids(2 * REACH + 21), REACH + 10
    with torch.no_grad():
        row = MODEL.model(tokens).last_hidden_state[0, at]
        for place in (at - REACH - 1, at + REACH + 1):
            other = tokens.clone()
            other[0, place] = 3 + (tokens[0, place] - 2) % 4
            assert torch.equal(MODEL.model(other).last_hidden_state[0, at], row)
        for place in range(at - 6, at + 7):
            other = tokens.clone()
            other[0, place] = 3 if tokens[0, place] != 3 else 4
            assert not torch.equal(MODEL.model(other).last_hidden_state[0, at], row), place


def test_masked_padded_and_unknown_letters_read_alike() -> None:
    tokens = ids(20)
    rows = []
    for hidden in (0, 1, 2):
        other = tokens.clone()
        other[0, 7] = hidden
        with torch.no_grad():
            rows.append(MODEL.model(other).last_hidden_state)
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[1], rows[2])


def test_first_weights_put_kmers_that_share_letters_near_each_other() -> None:
    table = KmerTable(3, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        table.draw()
    number = {"".join(word): n for n, word in enumerate(itertools.product("acgt?", repeat=3))}
    near = (table.weight[number["acg"]] - table.weight[number["acc"]]).norm()
    far = (table.weight[number["acg"]] - table.weight[number["gta"]]).norm()
    assert near < 0.8 * far


def test_random_weights_are_those_of_the_seed_and_residual_layers_begin_small() -> None:
    model = small(seed=3, body_width=64, fine_width=64)
    assert torch.equal(model.model.table.weight, small(seed=3, body_width=64, fine_width=64).model.table.weight)
    assert not torch.equal(model.model.table.weight, small(seed=4).model.table.weight)
    torch.manual_seed(0)
    calm = BendMiniForMaskedLM(BendMiniConfig(**{**SIZES, **ROWS, "body_width": 64}))
    assert calm.model.body[0].out.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_hidden_states_are_what_the_fine_layers_read_and_give() -> None:
    states = MODEL.model(ids(9), output_hidden_states=True)
    assert len(states.hidden_states) == 1 + ROWS["fine_layers"]
    assert torch.equal(states.hidden_states[-1], states.last_hidden_state)


@pytest.mark.parametrize("wrong", [{"stride": 3}, {"vocab_size": 9}])
def test_a_configuration_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"has an even stride and 7 tokens; this configuration has stride \d and"):
        BendMiniConfig(**wrong)


def word_shares(letters: str, word: int, begin: int, end: int) -> dict[str, float]:
    """Shares of the words that begin in a stretch, counted one by one."""
    words = [letters[at : at + word] for at in range(max(begin, 0), min(end, len(letters)))]
    whole = [one for one in words if len(one) == word and "?" not in one]
    return {one: whole.count(one) / len(whole) for one in whole}


@given(letters=st.text("acgt?", min_size=1, max_size=40), places=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_words_around_a_place_are_counted_on_both_sides(letters: str, places: int) -> None:
    model = small(around_word=2, around_places=places)
    tokens = torch.tensor([[1 if letter == "?" else 3 + "acgt".index(letter) for letter in letters]] * 2)
    n_places = -(-len(letters) // 4)
    shares = model.around.shares(tokens).view(2, n_places, 2, 4, 4)
    for place in range(n_places):
        spans = [((place + 1 - places) * 4, (place + 1) * 4), (place * 4, (place + places) * 4)]
        for side, (begin, end) in enumerate(spans):
            found = {
                "acgt"[first] + "acgt"[second]: shares[1, place, side, first, second].item()
                for first, second in itertools.product(range(4), repeat=2)
                if shares[1, place, side, first, second] > 0
            }
            assert found == pytest.approx(word_shares(letters, 2, begin, end))


def test_telling_the_words_around_costs_their_cross_entropy_in_training_alone() -> None:
    model = small(around_word=1, around_places=1, around_weight=0.5)
    tokens = torch.tensor([[3, 3, 4, 5, 6, 6, 6, 6]])  # aacg tttt: a place each
    places = torch.tensor([1, 7])
    with torch.no_grad():
        model.around.weight.zero_()
        model.around.bias.copy_(torch.tensor([0.5, 0.25, 0.125, 0.125] * 2).log())
        scores, cost = model.learned_at(tokens, places)
        torch.testing.assert_close(scores, model.scores_at(tokens, places))
    nats = 0.5 * 0.6931472 + 0.25 * 1.3862944 + 0.25 * 2.0794415  # half a, a quarter c, a quarter g
    torch.testing.assert_close(cost, 0.5 * torch.tensor([nats, 2.0794415]))


def test_evened_rows_vary_alike_in_all_directions_and_guess_the_same_letters() -> None:
    model = small(stride=2)
    text = [ids(400, seed, batch=4) for seed in range(3)]
    with torch.no_grad():
        before, scores = model.model(text[0]).last_hidden_state, model(text[0]).logits
        model.whiten(text)
        rows = torch.cat([model.model(some).last_hidden_state.flatten(0, 1) for some in text])
        assert torch.equal(model(text[0]).logits, scores)
    assert not torch.allclose(model.model(text[0]).last_hidden_state, before)
    assert rows.mean(dim=0).abs().max() < 1e-2
    for part in (rows[:, : ROWS["fine_width"]], rows[:, ROWS["fine_width"] :]):
        variance = torch.linalg.eigvalsh(part.T.cov())
        # a norm takes one direction; of the others none is far from 1, as none of these is near the least variance
        assert variance[0] < 1e-2
        assert variance[1] > 0.7
        assert variance[-1] < 1.02
    assert before.shape[-1] == model.config.hidden_size == ROWS["fine_width"] + SIZES["body_width"]


def test_the_map_that_evens_out_is_computed_and_not_learned() -> None:
    model = small()
    fixed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert fixed == {f"model.even_{scale}.{part}" for scale in ("fine", "body") for part in ("centre", "map")}
    row = MODEL.model(ids(9), output_hidden_states=True)
    assert torch.equal(row.last_hidden_state, MODEL.model.rows_at(ids(9), None, torch.arange(9))[None])


def test_nucleotides_of_one_place_share_what_the_body_says() -> None:
    body = MODEL.model(ids(12)).last_hidden_state[0, :, ROWS["fine_width"] :]
    assert torch.equal(body[0], body[3])
    assert not torch.equal(body[3], body[4])
