"""Families whose network transformers implements itself: they read the weights here, and add their tokens.

    class MyEmbedder(StockEmbedder):
        architecture = "LlamaForCausalLM"                         # the class of transformers, with its head

        def _read_tokens(self) -> int:                            # tables for _tokenize; the largest token id
            ...

Nothing of ``transformers.AutoModel`` is used, so an ``auto_map`` of ``config.json`` is without effect.

>>> causal_sizes(vocabulary_size=9)["vocab_size"]
9
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._bpe import TINY_SPECIALS, BpeTokenizer, tiny_bpe
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Fields that say how transformers should open a model. The keyword ``dtype`` decides, and no cache is kept.
_SETTINGS: Final = ("auto_map", "dtype", "torch_dtype", "use_cache")
# Parts of the base models of Llama, Mistral, Mixtral, Qwen 3 and ModernBERT in transformers.
_BARE: Final = ("embed_tokens.", "embeddings.", "layers.", "norm.", "final_norm.")
_LIMIT_TOKENS: Final = 1 << 40  # transformers writes 1e30 as the model_max_length of a tokenizer without a limit


class StockEmbedder(NetworkEmbedder):
    """An embedder around a network of transformers, which a family names by its ``architecture``."""

    architecture: ClassVar[str]
    context_tokens: int

    def _load(self) -> None:
        largest = self._read_tokens()
        self._build_stock(self.architecture, largest=largest)

    @abstractmethod
    def _read_tokens(self) -> int:
        """Read the tokens, set ``self.pad_id``, and return the largest token id that a sequence may have."""

    def _build_stock(self, architecture: str, *, largest: int) -> None:
        """Set ``self.model`` and ``self.context_tokens`` from ``config.json`` and the weights.

        Raises:
            ModelError: The network has fewer tokens than the tokenizer, or states no context.
        """
        import transformers

        maker: type[PreTrainedModel] = getattr(transformers, architecture)
        path = self.folder / "config.json"
        fields = {name: value for name, value in self._fields().items() if name not in _SETTINGS}
        config: PreTrainedConfig = maker.config_class.from_dict({**fields, "pad_token_id": self.pad_id})
        if hasattr(config, "use_cache"):
            config.use_cache = False
        if largest >= config.vocab_size:
            raise ModelError(
                f"the tokenizer of {self.folder} gives the token id {largest}, but vocab_size is {config.vocab_size} "
                f"in {path.name}; the files do not belong together"
            )
        self.context_tokens = self._context_of(config)
        self.model = self._build(
            lambda: maker(config),
            allow_missing=self.head_keys,
            allow_unexpected=("*.rotary_emb.inv_freq",),  # a buffer that transformers 4 stored
            rename=_whole_key,
        )

    def _fields(self) -> Mapping[str, object]:
        """Return the configuration of the network. Override it if the names in ``config.json`` are others."""
        return read_json(self.folder / "config.json")

    def _context_of(self, config: PreTrainedConfig) -> int:
        """Return the shortest of the stated lengths: of positions, of the tokenizer, and of the declaration.

        Positions may reach farther than the inputs that a model was trained on.
        """
        path = self.folder / "tokenizer_config.json"
        stated: list[object] = [config.max_position_embeddings]
        stated.append(read_json(path).get("model_max_length") if path.is_file() else None)
        stated.append(self.spec.context_tokens if self.spec is not None else None)
        return min(length for length in stated if isinstance(length, int) and 0 < length < _LIMIT_TOKENS)


class BpeStockEmbedder(StockEmbedder):
    """A network of transformers over the byte pairs of a ``tokenizer.json``, which also says what frames a sequence.

    Both protocols give the same embeddings: each chunk of a long sequence has its own special tokens.
    """

    def _read_tokens(self) -> int:
        self._tokenizer = BpeTokenizer.read(self.folder / "tokenizer.json")
        self.pad_id = self._tokenizer.special["[PAD]"]
        self._prefix, self._suffix = self._tokenizer.frame()
        return len(self._tokenizer.bp_of_id) - 1

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        window = self._window(self.context_tokens, prefix=self._prefix, suffix=self._suffix)
        return assemble(self._tokenizer.stream(sequences), window)

    def _loss_tokens(self) -> list[int]:
        """Return the ids that have nucleotides; an unknown nucleotide has no loss."""
        special = set(self._tokenizer.special.values())
        return [token for token, n_bp in enumerate(self._tokenizer.bp_of_id.tolist()) if n_bp and token not in special]


def _whole_key(key: str) -> str:
    """Add the prefix of the base model, which files of a bare base model lack."""
    return f"model.{key}" if key.startswith(_BARE) else key


def tiny_framed_bpe(nucleotides: str, *, gap: bool) -> dict[str, object]:
    """Make a tiny ``tokenizer.json`` of byte pairs with [CLS] in front and [SEP] behind; see ``tiny_bpe``."""
    front, behind = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    ids = {token: {"id": token, "ids": [TINY_SPECIALS.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    content = {"Sequence": {"id": "A", "type_id": 0}}
    frame = {"type": "TemplateProcessing", "single": [front, content, behind], "pair": [], "special_tokens": ids}
    return {**tiny_bpe(nucleotides, gap=gap), "post_processor": frame}


def causal_sizes(*, vocabulary_size: int) -> dict[str, object]:
    """Return the configuration of a tiny causal network, as Llama, Mistral and Qwen write it."""
    return {
        "vocab_size": vocabulary_size,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "hidden_act": "silu",
        "initializer_range": 0.2,
        "max_position_embeddings": TINY_CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
