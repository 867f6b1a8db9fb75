"""What every registered model promises, tested on its tiny checkpoint with random weights."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.embedders import MODELS, embedder_class, load_embedder
from bend_hf.embedders._embedder import Embedder, NetworkEmbedder
from bend_hf.embedders._loaded_model import lazily
from bend_hf.embedders._spec import Direction, EmbedderOptions, Source, Verified
from bend_hf.embedders.layers import layer_widths
from bend_hf.errors import ConfigError, ModelError
from bend_hf.files import asset_folder
from bend_hf.types import PROTOCOLS, ProtocolName
from tests.fake_checkpoints import TINY_CONTEXT_TOKENS, golden_checkpoint, make_tiny
from tests.shared_data import needs_shared


def with_a_checkpoint_of_its_own() -> list[str]:
    """One key for each tiny checkpoint and its options: entries that differ only in facts behave alike."""
    found: dict[str, str] = {}
    for spec in MODELS:
        tiny = None if spec.tiny is None else dataclasses.asdict(spec.tiny())
        found.setdefault(json.dumps([spec.embedder, tiny or spec.key, dict(spec.options)]), spec.key)
    return sorted(found.values())


KEYS = MODELS.names()
DISTINCT = with_a_checkpoint_of_its_own()
# BEND conf/embedding/embed.yaml: the models of its sweep, and those it declares.
BEND_NAMES = {
    *("awdlstm", "dnabert2", "dnabert6", "gena-lm-bert-large-t2", "gena-lm-bigbird-base-t2t", "hyenadna-large-1m"),
    *("hyenadna-medium-160k", "hyenadna-medium-450k", "hyenadna-small-32k", "hyenadna-tiny-1k", "nt_transformer_1000g"),
    *("nt_transformer_human_ref", "nt_transformer_ms", "nt_transformer_v2_500m", "onehot", "resnetlm"),
}
CODES = "ACGT" * 4 + "NRYKMSWBDHVacgtn"
LONG = "ACGTTGACGATTNACGTGGA" * 12
EDGES = [
    *("ACGTTGACG"[:n] for n in range(1, 10)),
    "N",
    "N" * 40,
    "ACG" + "N" * 9 + "ACGT" + "N" * 10 + "GATT" + "N" * 11,
    "acgtnnacgattgaca",
    "RYKMSWBDHV",
    *(LONG[:n] for n in range(TINY_CONTEXT_TOKENS - 3, TINY_CONTEXT_TOKENS + 3)),
    *(LONG[:n] for n in range(6 * TINY_CONTEXT_TOKENS - 8, 6 * TINY_CONTEXT_TOKENS + 2)),
]


@functools.cache
def tiny_folder() -> tempfile.TemporaryDirectory[str]:
    """The folder of the tiny checkpoints, removed when the tests end."""
    return tempfile.TemporaryDirectory(prefix="bend_hf_tiny_")


@functools.cache
def tiny_model(key: str, protocol: ProtocolName = "bend-2024", overlap_tokens: int = 0) -> Embedder:
    """A registered model with its tiny checkpoint. Batches are small, so that they mix chunks of many lengths."""
    options: EmbedderOptions = {"protocol": protocol, "overlap_tokens": overlap_tokens, "random_init": True}
    if MODELS.get(key).source == "none":
        return load_embedder(key, batch_tokens=200, **options)
    folder = Path(tiny_folder().name) / key
    return load_embedder(key, checkpoint=make_tiny(key, folder), batch_tokens=200, **options)


def check_promise(embedder: Embedder, sequences: list[str]) -> None:
    tokens = embedder.embed_tokens(sequences)
    rows = embedder.embed(sequences, upsample_embeddings=True)
    for sequence, of_tokens, of_nucleotides in zip(sequences, tokens, rows, strict=True):
        assert of_nucleotides.shape == (len(sequence), embedder.width), sequence
        assert of_nucleotides.dtype == np.float32
        assert np.isfinite(of_nucleotides).all(), sequence
        assert of_tokens.embedding_bp.sum() == len(sequence)
        assert (of_tokens.embedding_bp >= 1).all()
        np.testing.assert_array_equal(of_tokens.upsampled(), of_nucleotides)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", DISTINCT)
def test_one_embedding_per_nucleotide_at_the_edges(key: str, protocol: ProtocolName) -> None:
    check_promise(tiny_model(key, protocol), EDGES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", DISTINCT)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequences=st.lists(st.text(alphabet=CODES, min_size=1, max_size=80), min_size=1, max_size=4))
def test_one_embedding_per_nucleotide_for_any_iupac_codes(
    key: str, protocol: ProtocolName, sequences: list[str]
) -> None:
    check_promise(tiny_model(key, protocol), sequences)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", DISTINCT)
def test_result_does_not_depend_on_the_batch(key: str, protocol: ProtocolName) -> None:
    embedder = tiny_model(key, protocol)
    together = embedder.embed(EDGES)
    for sequence, rows in zip(EDGES, together, strict=True):
        np.testing.assert_allclose(embedder(sequence), rows, atol=1e-5, rtol=1e-5, err_msg=sequence)


@pytest.mark.parametrize("key", DISTINCT)
def test_sliding_windows_keep_the_promise(key: str) -> None:
    check_promise(tiny_model(key, "bend-hf-1", 6), EDGES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", DISTINCT)
def test_special_tokens_only_add_embeddings(key: str, protocol: ProtocolName) -> None:
    embedder = tiny_model(key, protocol)
    for sequence in ("ACGTTGACGATTNACGTGGA", LONG):
        bare = embedder(sequence, upsample_embeddings=True)
        kept = embedder(sequence, remove_special_tokens=False, upsample_embeddings=True)
        special = np.array([not (bare == row).all(axis=1).any() for row in kept])
        assert len(kept) >= len(bare)
        np.testing.assert_array_equal(kept[~special], bare)


@pytest.mark.parametrize("key", DISTINCT)
def test_logits_and_losses_have_one_value_per_token_or_raise(key: str) -> None:
    embedder = tiny_model(key)
    sequences = ["ACGTTGACGATTNACGTGGA", "ACG", LONG]
    if type(embedder)._logits is Embedder._logits:
        with pytest.raises(ModelError, match="has no language-model head"):
            embedder.loss(sequences)
        return
    losses = embedder.loss(sequences)
    tokens = embedder.embed(sequences)
    for loss, scores, rows in zip(losses, embedder.logits(sequences), tokens, strict=True):
        assert len(loss) == len(scores) == len(rows)
        assert scores.ndim == 2
        assert not (loss < 0).any()
    per_nucleotide = embedder.loss(sequences, upsample_embeddings=True)
    assert [len(loss) for loss in per_nucleotide] == [len(sequence) for sequence in sequences]


@pytest.mark.parametrize("key", DISTINCT)
def test_reverse_complement_average_is_the_same_for_both_strands(key: str) -> None:
    if MODELS.get(key).source == "none":
        pytest.skip("one-hot columns name nucleotides, so that the strands differ by design")
    one = tiny_model(key)
    both = embedder_class(MODELS.get(key))(one.folder, random_init=True, reverse_complement_average=True)
    ahead = both("ACGTTGACGATTNACGT", upsample_embeddings=True)
    back = both("ACGTNAATCGTCAACGT", upsample_embeddings=True)
    np.testing.assert_allclose(ahead, both._flip(back), atol=2e-5)


@pytest.mark.parametrize("key", DISTINCT)
def test_any_layer_can_be_asked_for(key: str) -> None:
    embedder = tiny_model(key)
    if MODELS.get(key).source == "none":
        pytest.skip("one-hot embeddings have no layers")
    first = embedder_class(MODELS.get(key))(embedder.folder, random_init=True, layer=0)
    assert len(first("ACGTTGACG", upsample_embeddings=True)) == 9
    assert not np.array_equal(first("ACGTTGACG"), embedder("ACGTTGACG"))


@pytest.mark.parametrize("key", DISTINCT)
def test_layer_that_is_not_there_is_refused_before_the_network_is_built(key: str) -> None:
    embedder, kind = tiny_model(key), embedder_class(MODELS.get(key))
    if MODELS.get(key).source == "none":
        with pytest.raises(ConfigError, match="has no layer 7; expected -1 to 0"):
            load_embedder(key, layer=7)
        return
    if not isinstance(embedder, NetworkEmbedder):
        pytest.skip("its layers are its own; see tests/parity/test_parity_evo2.py for Evo 2")
    n_layers = len(layer_widths(embedder))
    for layer in (n_layers, -n_layers - 1):
        with lazily(), pytest.raises(ConfigError, match=f"layer.*{layer}.*; expected -{n_layers} to {n_layers - 1}"):
            kind(embedder.folder, random_init=True, layer=layer)
    for layer in (n_layers - 1, -n_layers):
        assert len(kind(embedder.folder, random_init=True, layer=layer)("ACGT", upsample_embeddings=True)) == 4


@needs_shared
@pytest.mark.parametrize("key", KEYS)
def test_golden_checkpoint_of_the_family_is_read_whole(key: str) -> None:
    if MODELS.get(key).source == "none":
        pytest.skip("nothing to read")
    packaged = MODELS.get(key).source == "package"
    folder = None if packaged else golden_checkpoint(key)
    if not packaged and folder is None:
        pytest.skip("no reference checkpoint of this family")
    embedder = load_embedder(key, checkpoint=folder)
    check_promise(embedder, ["ACGTNNACGATTGACA", "ac", "N" * 12])
    assert embedder.weight_files
    assert len(embedder.identity["weights"]) == 64


@needs_shared
def test_every_model_of_bend_has_a_golden_checkpoint() -> None:
    hosted = {spec.key for name in BEND_NAMES if (spec := MODELS.get(name)).source not in ("none", "package")}
    assert {key for key in hosted if golden_checkpoint(key) is None} == set()


@needs_shared
def test_what_is_verified_by_references_has_a_reference_checkpoint() -> None:
    claimed = {spec.key for spec in MODELS if spec.verified == "golden" and spec.source != "none"}
    lacking = {key for key in claimed if golden_checkpoint(key) is None}
    assert {key for key in lacking if not key.startswith("plantcaduceus")} == set()  # its parity tests make one


@pytest.mark.parametrize("key", KEYS)
def test_declaration_is_complete(key: str) -> None:
    spec = MODELS.get(key)
    assert issubclass(embedder_class(spec), Embedder)
    assert spec.family
    assert spec.direction in get_args(Direction)
    assert spec.source in get_args(Source)
    # bend-mini has a card next to its weights; ModernGENA has no paper that is known here
    has_none = spec.source in ("package", "unknown") or spec.family == "ModernGENA"
    assert spec.paper.startswith("https://") or (not spec.paper and has_none)
    assert spec.verified in get_args(Verified)
    if spec.source != "none":
        assert spec.training_data
        assert spec.tiny is not None
        assert spec.n_parameters is None or spec.n_parameters > 0


def test_a_model_without_a_confirmed_address_asks_for_its_checkpoint() -> None:
    with pytest.raises(ModelError, match=r"the address of 'marindna' is not confirmed.* pass the folder or the Hub id"):
        load_embedder("marindna")


@pytest.mark.parametrize(
    ("alias", "key"), [(alias, spec.key) for spec in MODELS for alias in spec.aliases], ids=lambda name: name
)
def test_an_alias_loads_the_model_under_its_key(alias: str, key: str, tmp_path: Path) -> None:
    folder = make_tiny(key, tmp_path)
    named, called = (load_embedder(name, checkpoint=folder, random_init=True) for name in (key, alias))
    assert called.description["model"] == key
    assert called.identity == named.identity


CLAIMS = ("license", "paper", "training_data")


def test_own_and_random_weights_do_not_carry_the_claims_of_the_published_ones(tmp_path: Path) -> None:
    spec = MODELS.get("bend-mini")
    published = load_embedder("bend-mini").description
    assert [published[name] for name in CLAIMS] == [spec.license, spec.paper, spec.training_data]
    own = load_embedder(
        "bend-mini", checkpoint=shutil.copytree(asset_folder("pretrained") / "bend-mini", tmp_path / "my")
    )
    for embedder in (own, load_embedder("bend-mini", random_init=True)):
        assert {embedder.description[name] for name in CLAIMS} == {None}
        assert embedder.description["model"] == "bend-mini"


def test_the_names_of_bends_configuration_are_known() -> None:
    assert {name for spec in MODELS for name in spec.names} >= BEND_NAMES
    assert MODELS.get("gena-lm-bert-large-t2").checkpoint == "AIRI-Institute/gena-lm-bert-large-t2t"


def test_a_hub_id_is_the_model_that_declares_it(tmp_path: Path) -> None:
    spec = MODELS.get("dnabert3")
    by_id = load_embedder(spec.checkpoint, checkpoint=make_tiny(spec.key, tmp_path), random_init=True)
    assert by_id.description["model"] == spec.key


def test_listing_models_loads_no_heavy_package() -> None:
    code = (
        "import sys; from bend_hf.embedders import MODELS; assert len(MODELS.names()) > 1;"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'huggingface_hub'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
