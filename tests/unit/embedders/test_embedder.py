"""What all embedders share, tested on a tiny masked and a tiny causal model of single nucleotides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

import bend_hf.embedders
from bend_hf.embedders import MODELS, AutoEmbedder, OneHotEmbedder, load_embedder
from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._batching import BudgetTrials, Timer, batch_end
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import EmbedderOptions, ModelSpec
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, reverse_complement, single_nucleotides
from bend_hf.errors import ConfigError, InputError, ModelError, RegistryError
from bend_hf.registry import Registry
from tests.fake_checkpoints import make_tiny

CONTEXT = 16
CONFIG = BertConfig(
    vocab_size=9,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=CONTEXT,
    initializer_range=0.5,
    pad_token_id=0,
)


class ToyEmbedder(Embedder):
    """BERT over single nucleotides: PAD 0, CLS 1, SEP 2, UNK 3, A C G T 4 to 7."""

    needs_checkpoint = False

    def __init__(self, checkpoint: str | Path | None = None, **options: Unpack[EmbedderOptions]) -> None:
        self.shapes: list[tuple[int, int]] = []
        super().__init__(checkpoint, **options)

    def _load(self) -> None:
        self.bert: Any = self._build(lambda: BertForMaskedLM(CONFIG), allow_missing=("cls.*",))
        self.model = self.bert
        self._table = nucleotide_table({"A": 4, "C": 5, "G": 6, "T": 7}, unknown=3)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, self._window(CONTEXT, prefix=(1,), suffix=(2,)))

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        self.shapes.append((ids_BT.shape[0], ids_BT.shape[1]))
        return self._pick(self.bert.bert(ids_BT, mask_BT, output_hidden_states=layer != -1), layer)

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        logits: Tensor = self.bert(ids_BT, mask_BT).logits
        return logits

    def _loss_tokens(self) -> range:
        return range(4, 8)


class ToyCausal(ToyEmbedder):
    """The same scores read as those of a causal model."""

    direction = "causal"


@pytest.fixture(scope="module")
def toy() -> ToyEmbedder:
    return ToyEmbedder(random_init=True, batch_tokens=64)


def forward(toy: ToyEmbedder, ids: list[int]) -> Any:
    toy.runner()  # switches dropout off
    with torch.inference_mode():
        return toy.bert(torch.tensor([ids]), output_hidden_states=True)


def test_embeddings_are_the_models_own_without_specials(toy: ToyEmbedder) -> None:
    rows = toy("ACgTN")
    expected = forward(toy, [1, 4, 5, 6, 7, 3, 2]).hidden_states[-1][0]
    np.testing.assert_allclose(rows, expected[1:-1].numpy(), atol=1e-6)
    assert rows.dtype == np.float32


def test_special_tokens_are_kept_when_asked_for(toy: ToyEmbedder) -> None:
    rows = toy("ACG", remove_special_tokens=False)
    np.testing.assert_allclose(rows, forward(toy, [1, 4, 5, 6, 2]).hidden_states[-1][0].numpy(), atol=1e-6)


def test_long_sequence_is_cut_and_covered(toy: ToyEmbedder) -> None:
    sequence = "ACGTTGCA" * 5
    rows = toy(sequence, upsample_embeddings=True)
    assert rows.shape == (40, 8)
    np.testing.assert_allclose(rows[14:28], toy(sequence[14:28]), atol=1e-6)


def test_sliding_mode_covers_each_nucleotide_and_differs_from_cutting(toy: ToyEmbedder) -> None:
    sliding = ToyEmbedder(random_init=True, overlap_tokens=6)
    sequence = "ACGTTGCA" * 5
    assert sliding(sequence, upsample_embeddings=True).shape == (40, 8)
    assert not np.allclose(sliding(sequence), toy(sequence), atol=1e-3)
    np.testing.assert_allclose(sliding(sequence[:14]), toy(sequence[:14]), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    sequences=st.lists(st.text(alphabet="ACGTNRacgt", min_size=1, max_size=40), min_size=1, max_size=8),
    batch_tokens=st.sampled_from([1, 30, 64, 500]),
)
def test_result_does_not_depend_on_the_batch(sequences: list[str], batch_tokens: int) -> None:
    toy = ToyEmbedder(random_init=True, batch_tokens=batch_tokens)
    together = toy.embed(sequences, upsample_embeddings=True)
    for sequence, rows in zip(sequences, together, strict=True):
        assert len(rows) == len(sequence)
        np.testing.assert_allclose(rows, toy(sequence), atol=1e-5)


def test_batches_keep_to_their_budget_and_hold_like_lengths() -> None:
    toy = ToyEmbedder(random_init=True, batch_tokens=32)
    toy.embed(["A" * n for n in (14, 2, 13, 3, 14, 1)])
    assert toy.shapes == [(2, 16), (2, 15), (2, 4)]


def cut(lengths: list[int], **options: Any) -> list[list[int]]:
    """Lengths of all batches, longest first."""
    array = np.array(lengths)
    batches, first = [], 0
    while first < len(array):
        last = batch_end(array, first, **options)
        batches.append(lengths[first:last])
        first = last
    return batches


def test_equal_lengths_never_share_a_batch_with_others() -> None:
    assert cut([5, 5, 3, 3, 3], budget_tokens=99, equal_lengths=True) == [[5, 5], [3, 3, 3]]


def test_short_chunks_do_not_pay_for_a_long_ones_padding() -> None:
    assert cut([512, 510, 90, 80, 40], budget_tokens=9999) == [[512, 510], [90, 80], [40]]


def test_chunk_longer_than_the_budget_goes_alone() -> None:
    assert cut([60, 50], budget_tokens=10) == [[60], [50]]


def test_fastest_batch_size_is_found_by_trial() -> None:
    trials = BudgetTrials((200, 100, 400))
    for seconds in (1.0, 0.9, 0.8, 0.7, 0.5, 0.6):
        assert not trials.decided
        trials.record(trials.budget, seconds)
    assert trials.decided
    assert trials.budget == 400


def test_batch_that_is_not_full_decides_nothing() -> None:
    trials = BudgetTrials((200, 100))
    for _ in range(5):
        trials.record(150, 1.0)
    assert trials.budget == 200
    assert not trials.decided


def test_usual_batch_size_stays_where_others_are_hardly_faster() -> None:
    trials = BudgetTrials((200, 100))
    for seconds in (1.0, 1.0, 0.49, 0.49):
        trials.record(trials.budget, seconds)
    assert trials.budget == 200


def test_batch_size_that_does_not_fit_is_struck_off() -> None:
    trials = BudgetTrials((200, 100, 400))
    for _ in range(4):
        trials.record(trials.budget, 1.0)
    assert trials.budget == 400
    assert trials.out_of_memory()
    assert trials.decided
    assert trials.budget == 200
    assert not BudgetTrials((100,)).out_of_memory()


class Unfinished(Timer):
    """A batch that the device finishes when it is told to."""

    def __init__(self, seconds: float) -> None:
        self.seconds_taken, self.finished = seconds, False

    def seconds(self) -> float | None:
        return self.seconds_taken if self.finished else None


def test_budgets_are_timed_without_waiting_for_the_device() -> None:
    trials = BudgetTrials((200, 100))
    timers, budgets = [Unfinished(4.0), Unfinished(4.0), Unfinished(1.0), Unfinished(1.0)], []
    for timer in timers:
        budgets.append(trials.budget)
        trials.time(trials.budget, timer)
    assert budgets == [200, 200, 100, 100]
    assert (trials.decided, trials.budget) == (False, 200)  # the default, while the trials run
    for timer in timers:
        timer.finished = True
    trials.collect()
    assert (trials.decided, trials.budget) == (True, 100)


def test_embedding_streams_in_order_and_in_groups(toy: ToyEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bend_hf.embedders._embedder._GROUP_BYTES", {"cpu": 0})
    small = ToyEmbedder(random_init=True, batch_tokens=1)
    taken: list[int] = []

    def source() -> Any:
        for n in range(1, 30):
            taken.append(n)
            yield "A" * n

    first = next(small.iter_embed(source()))
    assert len(first) == 1
    assert len(taken) < 29
    assert [len(rows) for rows in small.iter_embed(source())] == list(range(1, 30))


def test_layers_are_counted_as_in_transformers(toy: ToyEmbedder) -> None:
    states = forward(toy, [1, 4, 5, 2]).hidden_states
    for layer in (0, 1, 2, -1, -2, -3):
        rows = ToyEmbedder(random_init=True, layer=layer)("AC")
        np.testing.assert_allclose(rows, states[layer][0, 1:-1].numpy(), atol=1e-6)


@pytest.mark.parametrize("layer", [3, -4])
def test_layer_that_is_not_there_raises(layer: int) -> None:
    with pytest.raises(ConfigError, match=f"has no layer {layer}; expected -3 to 2"):
        ToyEmbedder(random_init=True, layer=layer)("AC")


def test_reverse_complement_average_is_the_mean_of_both_strands(toy: ToyEmbedder) -> None:
    both = ToyEmbedder(random_init=True, reverse_complement_average=True)
    sequence = "ACGTTGCARN" * 3
    expected = (toy(sequence) + toy(reverse_complement(sequence))[::-1]) / 2
    np.testing.assert_allclose(both(sequence, upsample_embeddings=True), expected, atol=1e-6)
    (tokens,) = both.embed_tokens([sequence])
    np.testing.assert_allclose(tokens.values, expected, atol=1e-6)
    assert tokens.embedding_bp.tolist() == [1] * 30


def test_reverse_complement_average_needs_nucleotide_embeddings() -> None:
    with pytest.raises(ConfigError, match="use upsample_embeddings=True"):
        ToyEmbedder(random_init=True, reverse_complement_average=True)("ACGT")


def test_reverse_complement_twice_is_the_sequence() -> None:
    sequence = "ACGTNRYSWKMBDHVacgtnryswkmbdhv"
    assert reverse_complement(reverse_complement(sequence)) == sequence


def test_logits_are_the_heads_without_specials(toy: ToyEmbedder) -> None:
    (scores,) = toy.logits(["ACG"])
    np.testing.assert_allclose(scores, forward(toy, [1, 4, 5, 6, 2]).logits[0, 1:-1].numpy(), atol=1e-5)


def test_loss_of_a_masked_model_is_asked_at_its_own_place(toy: ToyEmbedder) -> None:
    (loss,) = toy.loss(["ACNG"])
    logits = forward(toy, [1, 4, 5, 3, 6, 2]).logits[0, 1:-1, 4:8]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 2]), reduction="none").numpy()
    np.testing.assert_allclose(loss[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-5)
    assert np.isnan(loss[2])


def test_loss_of_a_causal_model_is_asked_one_token_earlier() -> None:
    causal = ToyCausal(random_init=True)
    (loss,) = causal.loss(["ACG"])
    logits = forward(causal, [1, 4, 5, 6, 2]).logits[0, :3, 4:8]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]), reduction="none").numpy()
    np.testing.assert_allclose(loss, expected, atol=1e-5)


def test_loss_needs_a_head_that_was_read(toy: ToyEmbedder, tmp_path: Path) -> None:
    state = {f"bert.{key}": value for key, value in toy.bert.bert.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    headless = ToyEmbedder(tmp_path)
    np.testing.assert_allclose(headless("ACGT"), toy("ACGT"), atol=1e-6)
    with pytest.raises(ModelError, match="lacks the language-model head"):
        headless.loss(["ACGT"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_close_to_float32(toy: ToyEmbedder, dtype: Any) -> None:
    half = ToyEmbedder(random_init=True, dtype=dtype)
    np.testing.assert_allclose(half("ACGTTG"), toy("ACGTTG"), atol=0.1)
    assert half("A").dtype == np.float32


def test_compiling_takes_network_and_encoder_once_and_keeps_the_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_compile, taken = torch.nn.Module.compile, []

    def traced(module: torch.nn.Module, *, backend: str) -> None:
        taken.append(module)
        plain_compile(module, backend="eager")  # traced as ever, but no code is generated, which takes a minute

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    folder = make_tiny("dnabert3", tmp_path)
    compiled, plain = (load_embedder("dnabert3", checkpoint=folder, random_init=True, compile=c) for c in (True, False))
    for sequence in ("ACGTTGACG", "ACGTTGACGATTA"):
        np.testing.assert_allclose(compiled(sequence), plain(sequence), atol=1e-5)
        np.testing.assert_allclose(compiled.logits([sequence])[0], plain.logits([sequence])[0], atol=1e-5)
    assert isinstance(compiled.model, PreTrainedModel)
    assert taken == [compiled.model, compiled.model.base_model]


def test_random_weights_follow_the_seed() -> None:
    one, two, other = (ToyEmbedder(random_init=True, seed=seed)("ACGT") for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, other)


@pytest.mark.parametrize(
    ("sequences", "reason"),
    [
        (["A", ""], "sequence 1 is empty"),
        (["AC GT"], "sequence 0 contains ' '"),
        (["AÄ"], "sequence 0 contains 'Ä'"),
        ([5], "sequence 0 is of type int; expected a string"),
        ("ACGT", "takes a list of sequences, but got one string"),
    ],
)
def test_unreadable_input_raises(toy: ToyEmbedder, sequences: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        toy.embed(sequences)


def test_wrong_values_and_keywords_raise() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'bend-2025'; did you mean 'bend-2024'"):
        OneHotEmbedder(protocol="bend-2025")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown dtype 'float64'"):
        OneHotEmbedder(dtype="float64")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_tokens=0"):
        OneHotEmbedder(batch_tokens=0)
    with pytest.raises(TypeError, match="kmre"):
        load_embedder("onehot", kmre=6)  # type: ignore[call-arg]


def test_identity_tells_apart_what_changes_the_embeddings(toy: ToyEmbedder) -> None:
    base = toy.identity
    changes: list[EmbedderOptions] = [
        {"seed": 1},
        {"layer": 1},
        {"protocol": "bend-hf-1"},
        {"dtype": "bfloat16"},
        {"overlap_tokens": 2},
        {"reverse_complement_average": True},
    ]
    for change in changes:
        options: EmbedderOptions = {"random_init": True, **change}  # type: ignore[typeddict-item]
        assert ToyEmbedder(**options).identity != base, change
    assert ToyEmbedder(random_init=True, batch_tokens=7).identity == base


def test_description_holds_the_models_own_facts(toy: ToyEmbedder) -> None:
    facts = toy.description
    assert facts["width"] == 8
    assert facts["n_parameters"] == sum(weight.numel() for weight in toy.bert.parameters())


def test_identity_follows_the_files_and_not_their_place(tmp_path: Path) -> None:
    one, two = (make_tiny("dnabert3", tmp_path / name) for name in ("one", "two"))
    identities = [load_embedder("dnabert3", checkpoint=folder, random_init=True).identity for folder in (one, two)]
    assert identities[0] == identities[1]
    config = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    assert load_embedder("dnabert3", checkpoint=two, random_init=True).identity != identities[0]


def test_device_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown device 'gpu'; expected cpu, cuda"):
        OneHotEmbedder(device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device 'cuda:1' is not available"):
        OneHotEmbedder(device="cuda:1")("ACGT")


def test_model_without_a_head_has_no_loss() -> None:
    with pytest.raises(ModelError, match=r"^onehot has no language-model head"):
        OneHotEmbedder().loss(["ACGT"])


def test_batch_size_is_chosen_once_and_kept() -> None:
    toy = ToyEmbedder(random_init=True)
    toy.embed(["ACGT" * 3] * 3000)
    (trials,) = toy.runner().trials.values()
    assert trials.decided
    runs = len(toy.shapes)
    toy.embed(["ACGT" * 3] * 3000)
    assert len(toy.shapes) - runs == -(-3000 // (trials.budget // 14))


def test_unknown_model_names_the_nearest_one() -> None:
    assert "onehot" in MODELS
    with pytest.raises(RegistryError, match="unknown model 'onehott'; did you mean 'onehot'"):
        load_embedder("onehott")


OUTSIDE = """
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders.onehot import OneHotEmbedder

MODELS = (
    ModelSpec(key="outside", embedder=f"{__name__}:OutsideEmbedder", source="none", width=5, options={"layer": 0}),
)


class OutsideEmbedder(OneHotEmbedder):
    pass
"""


def test_model_that_a_file_declares_is_loaded_by_the_path_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "outside.py"
    path.write_text(OUTSIDE)
    for name in (path, str(path), f"{path}:outside"):
        embedder = load_embedder(name)
        assert type(embedder).__name__ == "OutsideEmbedder"
        assert embedder.description["model"] == "outside"
        assert embedder.layer == 0, "the declared options are passed on"
        assert embedder("ACGT").shape == (4, 5)
    with pytest.raises(RegistryError, match="holds no model 'outsid'; did you mean 'outside'"):
        load_embedder(f"{path}:outsid")


def test_model_of_a_plugin_is_loaded_by_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bend_hf.plugins]\nelsewhere = elsewhere_models\n")
    (tmp_path / "elsewhere_models.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    models = Registry[ModelSpec](kind="model", package="bend_hf.embedders", attribute="MODELS")
    monkeypatch.setattr(bend_hf.embedders, "MODELS", models)
    assert load_embedder("outside")("ACGT").shape == (4, 5)
    assert type(load_embedder("outside")).__module__ == "elsewhere_models"


def test_public_names_resolve_and_others_do_not() -> None:
    assert bend_hf.embedders.OneHotEmbedder is OneHotEmbedder
    with pytest.raises(AttributeError, match="no attribute 'NoEmbedder'"):
        bend_hf.embedders.NoEmbedder  # noqa: B018


def test_class_without_checkpoint_asks_for_one() -> None:
    with pytest.raises(ModelError, match="AutoEmbedder needs a checkpoint"):
        AutoEmbedder()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embedder": "Toy"}, "expected 'module:Class'"),
        ({"checkpoint": "org/name"}, "sources 'none' and 'unknown' have no checkpoint"),
        ({"source": "hub"}, "a checkpoint needs a source"),
        ({"width": 0}, "has width 0"),
    ],
)
def test_declarations_are_checked(change: dict[str, Any], reason: str) -> None:
    fields: dict[str, Any] = {"key": "toy", "embedder": "toy:Toy", "source": "none", "width": 2}
    with pytest.raises(ModelError, match=reason):
        ModelSpec(**fields | change)
