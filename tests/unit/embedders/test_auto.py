"""Any model of transformers by its folder: how it is aligned, and the errors for models that do not work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    EsmConfig,
    EsmForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from bend_hf.embedders import MODELS, AutoEmbedder, embedder_class, load_embedder
from bend_hf.errors import AlignmentError, ModelError
from tests.fake_checkpoints import make_tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "A", "C", "G", "T", "AC", "GT", "ACGT"]
MERGES = [("A", "C"), ("G", "T"), ("AC", "GT")]
SHAPE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def save_tokenizer(folder: Path, *, words: list[str] = WORDS, specials: bool = True, limit: int = 12) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=MERGES, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if specials:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def bert(**changes: int) -> BertConfig:
    return BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, pad_token_id=0, **SHAPE, **changes)


def saved(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model.eval()


def test_masked_model_gives_its_embeddings_aligned_by_offsets(tmp_path: Path) -> None:
    model = saved(BertForMaskedLM(bert()), tmp_path)
    embedder = AutoEmbedder(tmp_path)
    (tokens,) = embedder.embed_tokens(["ACGTNGTA"])
    assert tokens.embedding_bp.tolist() == [4, 1, 2, 1]
    with torch.inference_mode():
        expected = model.bert(torch.tensor([[2, 10, 1, 9, 4, 3]])).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(tokens.values, expected.numpy(), atol=1e-6)


def test_long_sequence_is_cut_by_the_tokenizers_limit(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    cut = AutoEmbedder(tmp_path).tokenize(["A" * 25])
    assert np.diff(cut.chunk_starts).tolist() == [12, 12, 7]


def test_causal_model_is_known_by_its_configuration(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(WORDS), n_positions=16, n_embd=8, n_layer=1, n_head=2)
    saved(GPT2LMHeadModel(config), tmp_path)
    embedder = AutoEmbedder(tmp_path)
    assert embedder.direction == "causal"
    assert len(embedder("ACGTNGTA", upsample_embeddings=True)) == 8
    (loss,) = embedder.loss(["ACGTA"])
    assert np.isfinite(loss).all()


def test_tokenizer_without_offsets_is_aligned_by_its_texts(tmp_path: Path) -> None:
    words = ["<unk>", "<pad>", "<mask>", "<cls>", "ACG", "A", "T", "C", "G", "N"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    limits = {"tokenizer_class": "EsmTokenizer", "model_max_length": 20, "cls_token": "<cls>", "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(limits | {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"})
    )
    config = EsmConfig(vocab_size=len(words), pad_token_id=1, mask_token_id=2, max_position_embeddings=22, **SHAPE)
    EsmForMaskedLM(config).save_pretrained(tmp_path)
    embedder = AutoEmbedder(tmp_path)
    (tokens,) = embedder.embed_tokens(["ACGTN"])
    assert tokens.embedding_bp.tolist() == [3, 1, 1]
    assert len(embedder("acgRTTN", upsample_embeddings=True)) == 7


def test_random_weights_need_no_weight_file(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    one, two = (AutoEmbedder(tmp_path, random_init=True, seed=3)("ACGT") for _ in range(2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ModelError, match="has no weights"):
        AutoEmbedder(tmp_path)


def test_weights_of_another_architecture_raise(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"its weights do not fit BertModel: missing \['encoder.layer.2"):
        AutoEmbedder(tmp_path)


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "novel", "auto_map": {"AutoModel": "x.Y"}}))
    (tmp_path / "x.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match="its architecture 'novel' comes as remote code, which is not run"):
        load_embedder(tmp_path)


def test_architecture_that_is_unknown_raises(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "novel"}))
    with pytest.raises(ModelError, match="transformers does not load it"):
        AutoEmbedder(tmp_path)


def test_tokenizer_that_wants_spaced_kmers_raises(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    tokenizer = Tokenizer(models.WordLevel(vocab={"[PAD]": 0, "[UNK]": 1, "ACG": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        ModelError, match="reads 'ACGTTGCAACGGTCATGACC' as unknown; it may expect k-mers separated by spaces"
    ):
        AutoEmbedder(tmp_path)


def test_nucleotides_that_become_several_tokens_cannot_be_aligned(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Replace("T", "GT")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(AlignmentError, match="that do not overlap"):
        AutoEmbedder(tmp_path)("ACTTG")


def test_weights_that_the_configuration_names_are_those_of_the_identity(tmp_path: Path) -> None:
    saved(BertModel(bert()), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    found = []
    for factor in (1.0, 2.0):
        save_file({name: value * factor for name, value in state.items()}, tmp_path / "other.safetensors")
        embedder = AutoEmbedder(tmp_path)
        assert [path.name for path in embedder.weight_files] == ["other.safetensors"]
        found.append((embedder.identity["weights"], embedder("ACGTACGT")))
    assert found[0][0] != found[1][0]
    assert not np.allclose(found[0][1], found[1][1])


def test_a_context_that_a_declaration_states_is_part_of_the_identity(tmp_path: Path) -> None:
    folder = make_tiny("caduceus-ph-1k", tmp_path)
    spec = MODELS.get("caduceus-ph-1k")
    embedder_of = embedder_class(spec)
    identities = [
        embedder_of(folder, spec=replace(spec, context_tokens=context), random_init=True).identity
        for context in (512, 512, 1024)
    ]
    assert identities[0] == identities[1] != identities[2]
