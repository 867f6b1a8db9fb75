"""A folder is opened with the family that its configuration names, and gives the same embeddings as with the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import BertConfig, BertModel, EsmConfig, EsmModel

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._family import family_of
from tests.fake_checkpoints import golden_checkpoint, make_tiny
from tests.shared_data import needs_shared

# GROVER with tokenizer.json is a BERT with a byte-pair tokenizer like any other, which AutoEmbedder reads.
KEYS = [spec.key for spec in MODELS if spec.tiny is not None and spec.family != "GROVER"]
ONE_OF_EACH = sorted({MODELS.get(key).embedder: key for key in KEYS}.values())


@pytest.mark.parametrize("key", KEYS)
def test_the_family_of_every_model_is_found(key: str, tmp_path: Path) -> None:
    declared = MODELS.get(key).embedder
    expected = "convnet:ConvNetEmbedder" if declared == "gpn:GPNEmbedder" else declared  # one network, two homes
    assert family_of(make_tiny(key, tmp_path)) == expected


@pytest.mark.parametrize("key", ONE_OF_EACH)
def test_a_folder_gives_the_embeddings_of_its_key(key: str, tmp_path: Path) -> None:
    folder = make_tiny(key, tmp_path)
    if not (folder / "tokenizer_config.json").exists():
        (folder / "tokenizer_config.json").write_text('{"model_max_length": 24}')
    by_folder = load_embedder(folder, random_init=True)
    by_key = load_embedder(key, checkpoint=folder, random_init=True)
    assert type(by_folder) is type(by_key) or key.startswith("gpn")
    np.testing.assert_array_equal(by_folder("ACGTTGCANNGATTACA"), by_key("ACGTTGCANNGATTACA"))
    assert by_folder.description["model"] == str(folder)


@needs_shared
@pytest.mark.parametrize(
    "key", ["dnabert6", "grover", "nt_transformer_ms", "gena-lm-bigbird-base-t2t", "hyenadna-tiny-1k"]
)
def test_a_published_checkpoint_gives_the_embeddings_of_its_key(key: str) -> None:
    folder = golden_checkpoint(key)
    if folder is None:
        pytest.skip("no reference checkpoint of this family")
    by_folder, by_key = load_embedder(folder), load_embedder(key, checkpoint=folder)
    np.testing.assert_array_equal(by_folder("ACGTTGCANNGATTACA"), by_key("ACGTTGCANNGATTACA"))


@pytest.mark.parametrize(("maker", "config"), [(BertModel, BertConfig), (EsmModel, EsmConfig)])
def test_other_models_of_a_shared_type_are_left_to_transformers(
    maker: type[BertModel], config: type[BertConfig], tmp_path: Path
) -> None:
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    maker(config(**sizes, intermediate_size=8)).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"ACGTN"]))
    assert family_of(tmp_path) is None
