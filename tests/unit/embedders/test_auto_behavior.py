"""What ``AutoEmbedder`` finds when it opens a model: padding, state, direction, positions, what the tokenizer reads.

The right embeddings are those of plain transformers, one sequence at a time, in a new network.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bend_hf.embedders import AutoEmbedder, load_embedder
from bend_hf.embedders._behavior import measure
from bend_hf.errors import ModelError

BERT = {
    "vocab_size": 10,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 10, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
FUNNEL = {"vocab_size": 10, "block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32}
REFORMER = {
    "vocab_size": 10,
    "attention_head_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "feed_forward_size": 16,
    "axial_pos_embds_dim": [8, 8],
    "axial_pos_shape": [16, 16],
    "max_position_embeddings": 256,
    "lsh_attn_chunk_length": 16,
    "local_attn_chunk_length": 16,
}
BIG_BIRD = {"block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 128}
MODERN = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


def letters(*, known: str = "ACGTN", unknown: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of single nucleotides."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if unknown else ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: number for number, word in enumerate([*names, *known])}
    made = Tokenizer(models.BPE(vocab=words, merges=[], **({"unk_token": "[UNK]"} if unknown else {})))
    ends = [(name, words[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    roles = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **roles, **({"unk_token": "[UNK]"} if unknown else {}))


def save(folder: Path, name: str, tokenizer: PreTrainedTokenizerFast | None = None, **sizes: object) -> Path:
    """Save a network of transformers, by the name of its class, with weights that show differences."""
    maker = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = maker(maker.config_class(**sizes))
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    (letters() if tokenizer is None else tokenizer).save_pretrained(folder)
    return folder


def alone(folder: Path, sequence: str) -> np.ndarray:
    """Embed one nucleotide sequence with a new network of plain transformers, special tokens left out."""
    model: PreTrainedModel = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)([sequence], return_tensors="pt")
    with torch.inference_mode():
        return np.asarray(model(inputs["input_ids"]).last_hidden_state[0, 1:-1])


@pytest.mark.parametrize(
    ("name", "sizes", "equal_lengths"),
    [
        ("BigBirdForMaskedLM", BERT | BIG_BIRD, True),
        ("FNetForMaskedLM", BERT, True),
        ("ConvBertForMaskedLM", BERT | {"embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 1}, True),
        ("FunnelForMaskedLM", FUNNEL, True),
        ("ReformerModel", REFORMER | {"attn_layers": ["local"], "is_decoder": False}, True),
        ("BertForMaskedLM", BERT, False),
        ("LongformerModel", BERT | {"attention_window": [8, 8]}, False),
        ("GPT2Model", GPT2, False),
        ("OPTModel", BERT | {"word_embed_proj_dim": 8, "ffn_dim": 32}, False),  # its width is not hidden_size
    ],
)
def test_embeddings_do_not_depend_on_the_batch_or_on_earlier_ones(
    name: str, sizes: dict[str, object], equal_lengths: bool, tmp_path: Path
) -> None:
    folder = save(tmp_path, name, **sizes)
    sequences = ["".join(np.random.default_rng(n).choice(list("ACGT"), n)) for n in (12, 30, 37, 41, 60)]
    embedder = AutoEmbedder(folder)
    together = embedder.embed(sequences, upsample_embeddings=True)
    again = embedder.embed(sequences[::-1], upsample_embeddings=True)[::-1]
    for sequence, rows, later in zip(sequences, together, again, strict=True):
        assert rows.shape == (len(sequence), embedder.width)
        np.testing.assert_allclose(rows, alone(folder, sequence), atol=2e-5)
        np.testing.assert_allclose(later, rows, atol=2e-5)
    assert embedder.description["padding_changes_embeddings"] is equal_lengths


def test_big_bird_draws_no_random_numbers_when_it_changes_its_attention(tmp_path: Path) -> None:
    embedder = AutoEmbedder(save(tmp_path, "BigBirdModel", **BERT | BIG_BIRD))
    state = torch.get_rng_state()
    embedder.embed(["ACGT", "ACGTTGCA" * 12, "ACGT"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("FunnelBaseModel", FUNNEL, r"shape \(1, 24, 16\) for inputs of shape \(1, 48\); expected one embedding per"),
        ("ReformerModel", REFORMER | {"attn_layers": ["lsh"], "is_decoder": False}, "draws random numbers or keeps"),
    ],
)
def test_a_model_whose_embeddings_are_not_of_the_sequence_alone_is_refused(
    name: str, sizes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        AutoEmbedder(save(tmp_path, name, **sizes))


def test_a_network_that_mixes_the_sequences_of_a_batch_is_refused() -> None:
    def rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        return (ids_BT - ids_BT.float().mean(0))[..., None] + 1

    with pytest.raises(ModelError, match="mixes the sequences of a batch"):
        measure(rows, long_ids=[1, 2, 3, 4, 5, 6], short_ids=[1, 2, 3], pad_id=0, name="mixer")


@given(left=st.integers(0, 5), right=st.integers(0, 5), n_tokens=st.integers(8, 40))
def test_direction_is_that_of_the_tokens_an_embedding_depends_on(left: int, right: int, n_tokens: int) -> None:
    def rows(ids_BT: torch.Tensor, mask_BT: torch.Tensor | None) -> torch.Tensor:
        padded = torch.nn.functional.pad(ids_BT.float(), (left, right))
        return padded.unfold(1, left + right + 1, 1).sum(-1)[..., None]

    ids = np.random.default_rng(n_tokens).permutation(n_tokens) + 1
    found = measure(rows, long_ids=ids.tolist(), short_ids=ids[:5].tolist(), pad_id=0, name="sums")
    assert found.direction == ("masked" if right else "causal" if left else None)


@pytest.mark.parametrize(
    ("name", "sizes", "direction"),
    [
        ("GPT2Model", GPT2, "causal"),
        ("MambaModel", {"vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1}, "causal"),
        ("BertLMHeadModel", BERT | {"is_decoder": True}, "causal"),
        ("BertModel", BERT, "masked"),
        ("BertForSequenceClassification", BERT, "masked"),
    ],
)
def test_direction_does_not_depend_on_the_name_of_the_class(
    name: str, sizes: dict[str, object], direction: str, tmp_path: Path
) -> None:
    embedder = AutoEmbedder(save(tmp_path, name, **sizes))
    assert embedder.direction == embedder.description["direction"] == direction


@pytest.mark.parametrize(
    ("name", "sizes", "context_tokens"),
    [
        ("MPNetForMaskedLM", BERT, 62),  # two rows in front of the first position
        ("RobertaModel", BERT | {"pad_token_id": 1}, 62),
        ("OPTModel", BERT | {"word_embed_proj_dim": 16, "ffn_dim": 32}, 64),  # two more rows than it states
        ("BertModel", BERT, 64),
        ("GPT2Model", GPT2, 64),
        ("MptModel", {"vocab_size": 10, "d_model": 16, "n_heads": 2, "n_layers": 1, "max_seq_len": 64}, 64),
        ("BertModel", BERT | {"max_position_embeddings": 20}, 20),  # shorter than the measured input
    ],
)
def test_a_long_sequence_is_cut_at_the_end_of_the_position_table(
    name: str, sizes: dict[str, object], context_tokens: int, tmp_path: Path
) -> None:
    embedder = AutoEmbedder(save(tmp_path, name, **sizes))
    assert len(embedder("ACGTTGCAGG" * 30, upsample_embeddings=True)) == 300
    assert embedder.description["context_tokens"] == context_tokens


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ElectraForPreTraining", BERT),
        ("ModernBertForSequenceClassification", BERT | MODERN),
        ("RobertaForSequenceClassification", BERT),
        (
            "DistilBertForTokenClassification",
            {"vocab_size": 10, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 8},
        ),
        ("EsmForTokenClassification", BERT | {"position_embedding_type": "rotary"}),
        ("BertForQuestionAnswering", BERT),
    ],
)
def test_the_head_of_another_task_is_left_out(
    name: str, sizes: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path, name, **sizes)
    with caplog.at_level("INFO"):
        rows = AutoEmbedder(folder)("ACGTACGTTG", upsample_embeddings=True)
    np.testing.assert_allclose(rows, alone(folder, "ACGTACGTTG"), atol=1e-5)
    assert "left out the unused head" in caplog.text


def test_a_checkpoint_for_pretraining_has_logits(tmp_path: Path) -> None:
    embedder = AutoEmbedder(save(tmp_path, "BertForPreTraining", **BERT))
    assert embedder.logits(["ACGT"])[0].shape == (4, 10)


def blank(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a blank in front of a text, as a token of its own."""
    mark = "\u0120" if kind == "byte level" else "\u2581"
    words = {word: i for i, word in enumerate(["<unk>", "<s>", mark, *"ACGTN", "AC", "GT", f"{mark}C"])}
    made = Tokenizer(models.BPE(vocab=words, merges=[("A", "C"), ("G", "T"), (mark, "C")], unk_token="<unk>"))
    match kind:
        case "normalizer":
            made.normalizer = normalizers.Prepend(mark)
        case "metaspace":
            made.pre_tokenizer = pre_tokenizers.Metaspace()
        case _:
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["normalizer", "metaspace", "byte level"])
def test_a_blank_in_front_is_read_by_the_model_and_has_no_embedding(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path, "GPT2LMHeadModel", blank(kind), **GPT2 | {"vocab_size": 16})
    embedder = AutoEmbedder(folder)
    sequences = ["ACGTACNNGT", "CAGT", "GGGGGGACGTAC" * 9]
    for sequence, rows in zip(sequences, embedder.embed(sequences, upsample_embeddings=True), strict=True):
        assert rows.shape == (len(sequence), 16)
    tokens = embedder.tokenize(["GAC"])
    assert tokens.embedding_bp.tolist() == [1, 2]
    assert tokens.ids.tolist() == transformers.AutoTokenizer.from_pretrained(folder)("GAC")["input_ids"]
    assert embedder.description["tokenizer_adds_blank"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences=st.lists(st.text(alphabet="ACGTNRY", min_size=1, max_size=80), min_size=1, max_size=4))
def test_nucleotides_without_a_token_still_have_an_embedding(
    sequences: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    embedder = _no_unknown(tmp_path_factory)
    for sequence, rows in zip(sequences, embedder.embed(sequences, upsample_embeddings=True), strict=True):
        assert rows.shape == (len(sequence), 16)
    assert not embedder.description["tokenizer_has_n"]


_MADE: list[AutoEmbedder] = []


def _no_unknown(factory: pytest.TempPathFactory) -> AutoEmbedder:
    if not _MADE:
        tokenizer = letters(known="ACGT", unknown=False)
        _MADE.append(AutoEmbedder(save(factory.mktemp("no_unknown"), "BertModel", tokenizer, **BERT)))
    return _MADE[0]


def word_piece(limit: int) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACGTN", *(f"##{letter}" for letter in "ACGTN")]
    ids = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=limit))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


def test_a_tokenizer_that_reads_a_window_as_one_unknown_token_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "BertModel", word_piece(100), **BERT | {"vocab_size": 15})
    with pytest.raises(ModelError, match="reads a window of 2000 nucleotides as one unknown token"):
        AutoEmbedder(folder)


def kmers(k: int, *, lone: str) -> PreTrainedTokenizerFast:
    """A tokenizer that cuts DNA into k-mers that do not overlap."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: n for n, word in enumerate([*names, *map("".join, itertools.product("ACGT", repeat=k)), *lone])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(f"[ACGT]{{{k}}}|." if lone else f".{{{k}}}|.+"), "isolated")
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("lone", ["ACGTN", ""])
@pytest.mark.parametrize("name", ["BertModel", "EsmModel", "LlamaModel"])
def test_a_tokenizer_of_kmers_that_do_not_overlap_is_followed(k: int, lone: str, name: str, tmp_path: Path) -> None:
    folder = save(tmp_path, name, kmers(k, lone=lone), **BERT | {"vocab_size": 5 + 4**k + len(lone)})
    embedder = load_embedder(folder)
    for sequence in ("ACGTTGCAACGGTCATGACC" * 3, "ACGTTGCAACGGT", "ACGNTGCAACGGTT"):
        cut = kmers(k, lone=lone).backend_tokenizer.pre_tokenizer.pre_tokenize_str(sequence)
        expected = np.repeat(alone(folder, sequence), [len(text) for text, _ in cut], axis=0)
        np.testing.assert_allclose(embedder(sequence, upsample_embeddings=True), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes"), [("LlamaForQuestionAnswering", BERT), ("OpenAIGPTDoubleHeadsModel", GPT2 | {"pad_token_id": 0})]
)
def test_a_head_that_names_its_base_model_in_its_own_way_is_no_reason_to_refuse(
    name: str, sizes: dict[str, object], tmp_path: Path
) -> None:
    folder = save(tmp_path, name, **sizes)
    model = getattr(transformers, name).from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(["ACGTTGCA"], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = model.base_model(ids).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(AutoEmbedder(folder)("ACGTTGCA"), expected, atol=1e-5)
    weights = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in weights.items() if ".1." not in key}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=rf"do not fit {name}: missing \['transformer"):
        AutoEmbedder(folder)


@pytest.mark.parametrize("stated", [None, "BertTokenizerFast", "XLMRobertaTokenizerFast"])
@pytest.mark.parametrize("name", ["BertModel", "ElectraModel", "BigBirdModel", "XLMRobertaModel"])
def test_the_file_of_the_tokenizer_decides_not_the_class_that_transformers_builds(
    name: str, stated: str | None, tmp_path: Path
) -> None:
    folder = save(tmp_path, name, **BERT)
    right = AutoEmbedder(folder)
    (folder / "tokenizer_config.json").unlink()
    if stated is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": stated, "model_max_length": 40}))
    embedder = AutoEmbedder(folder)
    for sequence in ("ACGTTGCANNA", "T", "NN"):
        assert embedder.tokenize([sequence]).ids.tolist() == right.tokenize([sequence]).ids.tolist()
        np.testing.assert_array_equal(embedder(sequence), right(sequence))
    assert embedder.description["context_tokens"] == (40 if stated else right.description["context_tokens"])


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("name", "sizes", "buffers"),
    [
        (
            "GPT2LMHeadModel",
            GPT2,
            {"transformer.h.0.attn.bias": (1, 1, 9, 9), "transformer.h.1.attn.masked_bias": ()},
        ),
        ("GPTJForCausalLM", GPT2 | {"rotary_dim": 4}, {"transformer.h.0.attn.bias": (1, 1, 64, 64)}),
        ("BertForMaskedLM", BERT, {"bert.embeddings.token_type_ids": (1, 64), "bert.embeddings.position_ids": (1, 64)}),
        ("LlamaForCausalLM", BERT, {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}),
        (
            "Qwen3ForCausalLM",
            BERT | {"head_dim": 8, "num_key_value_heads": 2},
            {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)},
        ),
    ],
)
def test_buffers_that_older_versions_saved_are_no_reason_to_refuse(
    name: str, sizes: dict[str, object], buffers: dict[str, tuple[int, ...]], pickled: bool, tmp_path: Path
) -> None:
    folder = save(tmp_path, name, **sizes)
    expected = alone(folder, "ACGTTGCA")
    weights = load_file(folder / "model.safetensors")
    saved = weights | {key: torch.ones(shape) for key, shape in buffers.items()}
    write(folder, saved, pickled=pickled)
    np.testing.assert_allclose(AutoEmbedder(folder)("ACGTTGCA"), expected, atol=1e-5)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("shape", [(16,), (1, 1, 16, 8), (2, 1, 16, 16)])
def test_a_bias_that_is_no_mask_is_a_reason_to_refuse(
    shape: tuple[int, ...], pickled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # some versions of transformers leave it out themselves
    monkeypatch.setattr("transformers.GPTJPreTrainedModel._keys_to_ignore_on_load_unexpected", None)
    folder = save(tmp_path, "GPTJForCausalLM", **GPT2 | {"rotary_dim": 4})
    weights = load_file(folder / "model.safetensors")
    write(folder, weights | {"transformer.h.0.attn.bias": torch.ones(shape)}, pickled=pickled)
    with pytest.raises(ModelError, match=r"unexpected \['transformer.h.0.attn.bias'\]"):
        AutoEmbedder(folder)


def write(folder: Path, weights: dict[str, torch.Tensor], *, pickled: bool) -> None:
    """Replace the weights of a folder."""
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_merges_are_not_left_out_at_random(tmp_path: Path) -> None:
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *"ACGT", "AC", "GT", "ACGT"])}
    merges = [("A", "C"), ("G", "T"), ("AC", "GT")]
    made = Tokenizer(models.BPE(vocab=words, merges=merges, unk_token="[UNK]", dropout=0.5))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    embedder = AutoEmbedder(save(tmp_path, "BertModel", tokenizer, **BERT))
    assert embedder.tokenize(["ACGT" * 100]).ids.tolist() == [words["ACGT"]] * 100


@pytest.mark.parametrize(
    "fields",
    [
        {"return_dict": False},
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2", "_attn_implementation_autoset": True},
        {"output_attentions": True, "output_hidden_states": True, "use_cache": True},
    ],
)
@pytest.mark.parametrize("name", ["BertForMaskedLM", "LlamaForCausalLM"])
def test_what_a_configuration_says_of_its_training_code_is_left_out(
    name: str, fields: dict[str, object], tmp_path: Path
) -> None:
    folder = save(tmp_path, name, **BERT)
    expected = alone(folder, "ACGTTGCA")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    np.testing.assert_allclose(AutoEmbedder(folder)("ACGTTGCA"), expected, atol=1e-5)


def test_a_longer_window_that_becomes_one_unknown_token_raises(tmp_path: Path) -> None:
    embedder = AutoEmbedder(save(tmp_path, "BertModel", word_piece(3000), **BERT | {"vocab_size": 15}))
    assert embedder("ACGT" * 700, upsample_embeddings=True).shape == (2800, 16)
    with pytest.raises(ModelError, match="reads a window of 3004 nucleotides as one unknown token, ACGTACGTACGT"):
        embedder("ACGT" * 751)


@pytest.mark.parametrize("unknown", [True, False])
def test_a_tokenizer_of_rna_is_refused(unknown: bool, tmp_path: Path) -> None:
    folder = save(tmp_path, "BertModel", letters(known="ACGUN", unknown=unknown), **BERT)
    with pytest.raises(ModelError, match="its tokenizer has no token for T; expected tokens for A, C, G and T"):
        AutoEmbedder(folder)


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "BertModel", **BERT | {"vocab_size": 8})
    with pytest.raises(ModelError, match="gives the token id 8, but its network has 8 tokens"):
        AutoEmbedder(folder)
