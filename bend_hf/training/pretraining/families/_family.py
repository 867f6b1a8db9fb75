"""What a family of models declares so that it can be pretrained, and the tokenizer files of nucleotide models.

A new family is a file in this folder with ``FAMILIES = (Family(...),)``: its classes by name, its sizes, the token ids
of the nucleotides, and the name of its head. Nothing heavy is imported before a model is built.

>>> from bend_hf.training.pretraining.families import FAMILIES
>>> FAMILIES.get("convnet").resolve(("n_layers=2",), window_bp=512)["n_layers"]
2
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.files import parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

Objective: TypeAlias = Literal["masked", "causal"]
Size: TypeAlias = "bool | int | float | str"

SYMBOLS: Final = ("A", "C", "G", "T", "N", "[MASK]")  # what the codes 0 to 5 of a window stand for
N_NUCLEOTIDES: Final = 4


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        key: Registry key, and the name that ``--model`` takes.
        objective: ``masked`` predicts masked nucleotides, ``causal`` the next one.
        network: ``module:Class`` of the model with its language-model head, a ``PreTrainedModel``.
        configuration: ``module:Class`` of its configuration.
        head: Attribute of the network that turns hidden states (..., width) into scores (..., vocabulary).
        token_ids: Tokens of A, C, G, T, N and the mask; a causal family does not use the last.
        learning_rate: Default learning rate.
        scores_at: Method of the network that scores some tokens alone, ``(ids (batch, tokens), positions (N,)) -> (N,
            vocabulary)``, for networks whose last part is computed per token; None computes every token.
        learned_at: Method of the network, called as ``scores_at``, that returns those scores and the loss of a further
            objective per target, (N,) in nats, such as skip-gram; None if there is no further objective.
        finish: Method of the network that is called with token ids of training windows, (batch, tokens) each, after
            the training, for what is computed instead of learned.
        sizes: Fields of the configuration that ``--set`` may change, with their defaults.
        least: The smallest values of sizes, if not 1.
        fixed: Further fields of the configuration.
        window_sizes: Fields of the configuration that are the length of a window plus a number.
        competing: Token ids that the loss normalizes over, as the family's embedder does; None for the whole
            vocabulary.
        opens_with: Key of the embedder that reads a folder of this family with ``--checkpoint``; None if the folder
            itself is given to ``--model``.
        in_bfloat16: Whether it can be trained with ``--mixed-precision bf16``.
        write_tokenizer: Writes the tokenizer files into a folder, called with the folder and the length of a window.
        aliases: Other names that ``--model`` takes.
    """

    key: str
    objective: Objective
    network: str
    configuration: str
    head: str
    token_ids: tuple[int, int, int, int, int, int]
    learning_rate: float
    sizes: Mapping[str, Size]
    scores_at: str | None = None
    learned_at: str | None = None
    finish: str | None = None
    least: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, Size] = field(default_factory=dict)
    window_sizes: Mapping[str, int] = field(default_factory=dict)
    competing: tuple[int, ...] | None = None
    opens_with: str | None = None
    in_bfloat16: bool = True
    write_tokenizer: Callable[[Path, int], None] = lambda folder, window_bp: None
    aliases: tuple[str, ...] = ()

    def resolve(self, settings: Sequence[str], *, window_bp: int) -> dict[str, Size]:
        """Return the fields of the configuration.

        Args:
            settings: ``name=value`` each, as ``--set`` takes them.
            window_bp: Nucleotides of a window.

        Raises:
            ConfigError: A setting is malformed, unknown, or of another type.
        """
        chosen = dict(self.sizes)
        for setting in settings:
            name, given, text = setting.partition("=")
            name = name.strip()
            if not given:
                raise ConfigError(f"--set {setting!r} has no value; expected name=value, such as {self._example()}")
            if name not in self.sizes:
                raise ConfigError(
                    f"--set {setting!r}: {self.key} has no size {name!r}; {did_you_mean(name, list(self.sizes))}"
                )
            chosen[name] = _read(setting, text.strip(), self.sizes[name], self.least.get(name, 1))
        return {**chosen, **self.fixed, **{name: window_bp + extra for name, extra in self.window_sizes.items()}}

    def build(self, sizes: Mapping[str, Size], seed: int) -> PreTrainedModel:
        """Build the network with random weights: those of its embedder with ``random_init`` and the same seed.

        Raises:
            ConfigError: The sizes do not fit each other.
        """
        from bend_hf.embedders._weights import build_random

        make_config, make = _named(self.configuration), _named(self.network)
        try:
            model: PreTrainedModel = build_random(lambda: make(make_config(**sizes)), seed)
            self._try(model)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.key} cannot be built with {dict(sizes)}: {error}; change the sizes with --set"
            ) from error
        return model

    def _try(self, model: PreTrainedModel) -> None:
        """Run the network on two tokens, as some sizes that do not fit fail only then."""
        import torch

        with torch.no_grad():
            self.score(model, torch.tensor([self.token_ids[:2]]), torch.arange(2))

    def score(self, model: PreTrainedModel, ids_BT: Tensor, position_N: Tensor) -> Tensor:
        """Compute the scores of the vocabulary at some tokens.

        Only these tokens pass through the head: one in seven in a masked batch.

        Args:
            model: The network.
            ids_BT: Token ids, int64, shape (batch, tokens).
            position_N: Indices of the tokens in the flattened batch, int64, shape (N,).

        Returns:
            Float, shape (N, vocabulary).
        """
        if self.scores_at is not None:
            scored: Tensor = getattr(model, self.scores_at)(ids_BT, position_N)
            return scored
        head: nn.Module = getattr(model, self.head)
        hidden_BTD: Tensor = model.base_model(ids_BT).last_hidden_state
        scores_NV: Tensor = head(hidden_BTD.flatten(0, 1).index_select(0, position_N))
        return scores_NV

    def learn(self, model: PreTrainedModel, ids_BT: Tensor, position_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute those scores, and the loss of a further objective per target, shape (N,), or None."""
        if self.learned_at is None:
            return self.score(model, ids_BT, position_N), None
        scores_NV, further_N = getattr(model, self.learned_at)(ids_BT, position_N)
        return scores_NV, further_N

    def command(self, folder: Path) -> str:
        """Return the flags that open a model folder of this family."""
        return f"--model {folder}" if self.opens_with is None else f"--model {self.opens_with} --checkpoint {folder}"

    def _example(self) -> str:
        name, value = next(iter(self.sizes.items()))
        return f"{name}={value}"


def _read(setting: str, text: str, like: Size, least: int) -> Size:
    """Read the value of a setting, of the type of its default; an integer must not be below ``least``."""
    if isinstance(like, str):
        return text
    try:
        value = parse_json(text)
    except ValueError:
        value = text
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(like):
        raise ConfigError(
            f"--set {setting!r}: {text!r} is not of type {type(like).__name__}; give a value such as {like}"
        )
    if isinstance(value, float) and not math.isfinite(value):  # json reads NaN and Infinity
        raise ConfigError(f"--set {setting!r}: {text} is not finite; give a value such as {like}")
    if isinstance(like, int) and not isinstance(like, bool) and value < least:
        raise ConfigError(f"--set {setting!r}: {text} is too small; expected {least} or more")
    number: Size = value
    return number


def _named(path: str) -> Callable[..., PreTrainedModel]:
    module, _, name = path.partition(":")
    found: Callable[..., PreTrainedModel] = getattr(importlib.import_module(module), name)
    return found


# Order and spelling of BEND's published tokenizer.json, also used by the first release of GPN.
PADDING, MASK, UNKNOWN = "[PAD]", "[MASK]", "[UNK]"
_SPECIALS: Final = (PADDING, MASK, UNKNOWN)
NUCLEOTIDE_IDS: Final = (3, 4, 5, 6, 2, 1)  # A, C, G, T, N (unknown) and the mask
VOCABULARY_SIZE: Final = 7


def nucleotide_vocabulary(nucleotides: str) -> dict[str, int]:
    """Return token ids: padding 0, mask 1, unknown 2, then the nucleotides."""
    return {token: number for number, token in enumerate((*_SPECIALS, *nucleotides))}


def write_tokenizer_of_nucleotides(folder: Path, window_bp: int) -> None:
    """Write the tokenizer of a model without a context limit. It reads either case, and N as unknown."""
    _write(folder, longest=None)


def write_window_tokenizer(folder: Path, window_bp: int) -> None:
    """Write the same tokenizer for a model whose context is the window that it was trained on."""
    _write(folder, longest=window_bp)


def _write(folder: Path, *, longest: int | None) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocab=nucleotide_vocabulary("acgt"), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    limit = {} if longest is None else {"model_max_length": longest}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, mask_token=MASK, unk_token=UNKNOWN, **limit
    ).save_pretrained(folder)
