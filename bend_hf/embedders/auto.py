"""Embed with any base model of transformers, given by its Hub id or folder.

For models without a family in this package. Tokens are aligned by the offsets of a fast tokenizer, or by the texts of
the tokens. Remote code is not run.

>>> AutoEmbedder("no-such-owner/")
Traceback (most recent call last):
bend_hf.errors.ModelError: there is no checkpoint folder no-such-owner; pass a folder ...
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._tokens import stream_from_offsets
from bend_hf.embedders._weights import build_random, check_weight_file, find_weights
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import AlignmentError, ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

# Keys that a base model does not have, and keys that many checkpoints lack and embeddings do not use.
_HEADS: Final = ("cls.", "lm_head.", "classifier.", "qa_outputs.", "score.", "generator_")
_UNUSED: Final = ("pooler.", "contact_head.")
# Model types whose positions start at pad_id + 1, so that n positions take n - pad_id - 1 tokens: transformers,
# create_position_ids_from_input_ids.
_SHIFTED_POSITIONS: Final = frozenset({"camembert", "esm", "longformer", "roberta", "xlm-roberta"})
# Block-sparse attention depends on the padded length, so that padding would change a result.
_LENGTH_MATTERS: Final = frozenset({"big_bird"})
_NO_LIMIT_TOKENS: Final = 10**9  # transformers writes 10 ** 30 for a tokenizer without a limit
_SAMPLE: Final = "ACGTTGCAACGGTCATGACC"


class _Tokenizer(Protocol):
    """The methods of a transformers tokenizer that are used here."""

    is_fast: bool
    model_max_length: int
    mask_token_id: int | None
    pad_token_id: int | None
    unk_token: str | None
    unk_token_id: int | None

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool = False
    ) -> dict[str, Any]: ...

    def tokenize(self, text: str) -> list[str]: ...

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...


class AutoEmbedder(Embedder):
    """A model that ``transformers.AutoModel`` loads without remote code.

    Raises:
        ModelError: The model cannot be loaded completely, or its tokenizer does not read DNA.
        AlignmentError: The tokens cannot be aligned with a sequence.
    """

    model: PreTrainedModel

    def _load(self) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self._refuse_code()
        try:
            config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
            self._tokenizer: _Tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        except (ValueError, KeyError, OSError, ImportError) as error:
            raise ModelError(self._cannot(f"transformers does not load it: {error}")) from error
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                self._cannot("it is an encoder-decoder model, which does not have one embedding per token")
            )
        self.equal_lengths = config.model_type in _LENGTH_MATTERS
        self.pad_id = self._tokenizer.pad_token_id or 0
        self.mask_id = self._tokenizer.mask_token_id
        self._prefix, self._suffix = self._specials()
        self._context_tokens = self._context(config)
        self.model = self._network(config)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = self._by_offsets(sequences) if self._tokenizer.is_fast else self._by_texts(sequences)
        return assemble(stream, self._window(self._context_tokens, prefix=self._prefix, suffix=self._suffix))

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        base = self.model.base_model
        return self._pick(base(ids_BT, attention_mask=mask_BT, output_hidden_states=layer != -1), layer)

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        if not self._has_head:
            return super()._logits(ids_BT, mask_BT)
        logits: Tensor = self.model(ids_BT, attention_mask=mask_BT).logits
        return logits

    def _by_offsets(self, sequences: list[str]) -> TokenStream:
        encoded = self._tokenizer(sequences, add_special_tokens=False, return_offsets_mapping=True)
        lengths_bp = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        return stream_from_offsets(
            encoded["input_ids"], encoded["offset_mapping"], lengths_bp=lengths_bp, name=self.name
        )

    def _by_texts(self, sequences: list[str]) -> TokenStream:
        """Align tokens whose concatenated texts are the sequence; an unknown token is one nucleotide."""
        texts = [self._tokenizer.tokenize(sequence) for sequence in sequences]
        unknown = self._tokenizer.unk_token
        for index, (sequence, tokens) in enumerate(zip(sequences, texts, strict=True)):
            spelled = "".join(tokens).upper()
            if spelled != sequence and sum(1 if token == unknown else len(token) for token in tokens) != len(sequence):
                raise AlignmentError(
                    f"{self.name} has a tokenizer without offsets, and its tokens for sequence {index} spell "
                    f"{spelled[:40]!r} instead of {sequence[:40]!r}. Write a family with _tokenize(), or a Python "
                    f"file with embed() and pass its path as the model"
                )
        starts = starts_of([len(tokens) for tokens in texts])
        flat = list(chain.from_iterable(texts))
        ids = np.array(self._tokenizer.convert_tokens_to_ids(flat), dtype=np.int32)
        token_bp = np.array([1 if token == unknown else len(token) for token in flat], dtype=np.int64)
        return TokenStream(ids=ids, token_bp=token_bp, starts=starts)

    def _specials(self) -> tuple[list[int], list[int]]:
        """Find the special tokens in front and behind, by encoding a sample with and without them."""
        (whole,) = self._tokenizer([_SAMPLE], add_special_tokens=True)["input_ids"]
        (bare,) = self._tokenizer([_SAMPLE], add_special_tokens=False)["input_ids"]
        if not bare or all(token == self._tokenizer.unk_token_id for token in bare):
            raise ModelError(
                self._cannot(
                    f"its tokenizer reads {_SAMPLE!r} as unknown; it may expect k-mers separated by spaces. Models "
                    f"such as DNABERT have their own family, see 'bend-hf models'"
                )
            )
        for front in range(len(whole) - len(bare) + 1):
            if whole[front : front + len(bare)] == bare:
                return whole[:front], whole[front + len(bare) :]
        raise ModelError(self._cannot("its tokenizer changes the tokens of a sequence when it adds special tokens"))

    def _context(self, config: PretrainedConfig) -> int | None:
        limits = [int(self._tokenizer.model_max_length)]
        positions = getattr(config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:
            shifted = config.model_type in _SHIFTED_POSITIONS
            limits.append(positions - self.pad_id - 1 if shifted else positions)
        limits = [limit for limit in limits if limit < _NO_LIMIT_TOKENS]
        return min(limits) if limits else None

    def _network(self, config: PretrainedConfig) -> PreTrainedModel:
        """Build the network, with its language-model head if the configuration says that it was saved with one."""
        import torch
        from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

        saved_as = (getattr(config, "architectures", None) or [""])[0]
        self._has_head = True
        if saved_as.endswith("ForMaskedLM"):
            maker = AutoModelForMaskedLM
        elif saved_as.endswith(("ForCausalLM", "LMHeadModel")):
            maker, self.direction = AutoModelForCausalLM, "causal"
        else:
            maker, self._has_head = AutoModel, False
        if self.random_init:
            return build_random(lambda: maker.from_config(config), self.seed)
        self.weight_files = tuple(find_weights(self.folder))
        for path in self.weight_files:
            check_weight_file(path)
        try:
            network, info = maker.from_pretrained(
                self.folder,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises many kinds of errors
            raise ModelError(self._cannot(f"{type(error).__name__}: {str(error).splitlines()[0]}")) from error
        missing = [key for key in info["missing_keys"] if not any(part in key for part in _UNUSED)]
        known = _UNUSED if self._has_head else (*_UNUSED, *_HEADS)
        unexpected = [key for key in info["unexpected_keys"] if not any(part in key for part in known)]
        if missing or unexpected or info["mismatched_keys"]:
            raise ModelError(
                self._cannot(
                    f"its weights do not fit {type(network).__name__}: missing {sorted(missing)[:5]}, unexpected "
                    f"{sorted(unexpected)[:5]}, with another shape {sorted(map(str, info['mismatched_keys']))[:5]}"
                )
            )
        return network

    def _refuse_code(self) -> None:
        """Raise if the architecture comes as remote code that transformers itself does not have."""
        from transformers import CONFIG_MAPPING

        config = read_json(self.folder / "config.json")
        if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
            raise ModelError(
                self._cannot(
                    f"its architecture {config.get('model_type')!r} comes as remote code, which is not run; "
                    f"'bend-hf models' lists the models of this package"
                )
            )

    def _cannot(self, reason: str) -> str:
        return f"cannot load {str(self.checkpoint)!r} as a transformers model: {reason}"
