"""What a family of models declares so that it can be trained.

A new one is a file in this folder that holds ``FAMILIES = (Family(...),)``: its classes by name, its sizes, the token
ids of the letters, and the name of its head. Nothing heavy is imported before a model is built.

>>> from bend_hf.training.pretraining.families import FAMILIES
>>> FAMILIES.get("convnet").resolve(("n_layers=2",), window_bp=512)["n_layers"]
2

The tokenizer of single letters, written in the form of the tokenizers library.

>>> letter_vocabulary("acgt")["a"]
3
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

Objective: TypeAlias = Literal["masked", "causal"]
Size: TypeAlias = "bool | int | float | str"

LETTERS: Final = ("A", "C", "G", "T", "N", "[MASK]")  # what the codes 0 to 5 of a window stand for
N_NUCLEOTIDES: Final = 4


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family.

    Attributes:
        key: What ``--model`` calls it.
        objective: What it learns: letters that are hidden from it, or the letter that comes next.
        network: ``module:Class`` of the model with its language-model head, a ``PreTrainedModel``.
        configuration: ``module:Class`` of its configuration.
        head: Attribute of the network that turns hidden states (..., width) into scores (..., vocabulary).
        token_ids: Token of A, C, G, T, N and of the mask, in this order; a causal family has no use for the last.
        learning_rate: Where none is given.
        scores_at: Method of the network that scores some tokens alone, ``(ids (batch, tokens), places (N,)) -> (N,
            vocabulary)``, for networks whose last part looks at one place at a time; None runs all of it everywhere.
        learned_at: Method of the network, called as ``scores_at``, that gives those scores and what each answer costs
            beside the guess of its letter, (N,) in nats, where a network learns more than to guess letters.
        finish: Method of the network that is given token ids of training windows, (batch, tokens) each, when training
            is over, for what is computed and not learned.
        sizes: What ``--set`` may change, by the names of the configuration, and what it is otherwise.
        least: The smallest values of sizes that must not be 1.
        fixed: Further fields of the configuration.
        window_sizes: Fields of the configuration that are the window's length and so many more.
        competing: Token ids among which the loss shares out probability, as the family's embedder counts it; None for
            the whole vocabulary.
        opens_with: Key of the registry of embedders that reads a folder of this family with ``--checkpoint``; None
            where the folder itself is given to ``--model``.
        in_bfloat16: Whether it can be trained with ``--mixed-precision bf16``.
        write_tokenizer: Writes the tokenizer's files into a folder; told the length of a window.
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

    def resolve(self, settings: Sequence[str], *, window_bp: int) -> dict[str, Size]:
        """The fields of the configuration.

        Args:
            settings: ``name=value`` each, as ``--set`` takes them.
            window_bp: Nucleotides of a window.

        Raises:
            ConfigError: A setting is none, unknown, or not of its kind.
        """
        chosen = dict(self.sizes)
        for setting in settings:
            name, given, text = setting.partition("=")
            name = name.strip()
            if not given:
                raise ConfigError(f"--set {setting!r} sets nothing; expected name=value, such as {self._example()}")
            if name not in self.sizes:
                raise ConfigError(
                    f"--set {setting!r}: {self.key} has no size {name!r}; {did_you_mean(name, list(self.sizes))}"
                )
            chosen[name] = _read(setting, text.strip(), self.sizes[name], self.least.get(name, 1))
        return {**chosen, **self.fixed, **{name: window_bp + extra for name, extra in self.window_sizes.items()}}

    def build(self, sizes: Mapping[str, Size], seed: int) -> PreTrainedModel:
        """The network with random weights: those that its embedder has with ``random_init`` and the same seed.

        Raises:
            ConfigError: The sizes do not fit each other.
        """
        from bend_hf.embedders._weights import build_random

        make_config, make = _named(self.configuration), _named(self.network)
        try:
            model: PreTrainedModel = build_random(lambda: make(make_config(**sizes)), seed)
            self._try(model)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"no {self.key} can be built of {dict(sizes)}: {error}; change it with --set") from error
        return model

    def _try(self, model: PreTrainedModel) -> None:
        """Runs the network on two letters: some sizes that do not fit each other show only then."""
        import torch

        with torch.no_grad():
            self.score(model, torch.tensor([self.token_ids[:2]]), torch.arange(2))

    def score(self, model: PreTrainedModel, ids_BT: Tensor, place_N: Tensor) -> Tensor:
        """Scores of the vocabulary at some tokens, which are counted through (batch, tokens).

        Only what is asked for passes through the head: of a masked batch one token in seven.

        Returns:
            Shape (places, vocabulary).
        """
        if self.scores_at is not None:
            scored: Tensor = getattr(model, self.scores_at)(ids_BT, place_N)
            return scored
        head: nn.Module = getattr(model, self.head)
        hidden_BTD: Tensor = model.base_model(ids_BT).last_hidden_state
        scores_NV: Tensor = head(hidden_BTD.flatten(0, 1).index_select(0, place_N))
        return scores_NV

    def learn(self, model: PreTrainedModel, ids_BT: Tensor, place_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """Those scores, and what each answer costs beside the guess of its letter, shape (places,); None: nothing."""
        if self.learned_at is None:
            return self.score(model, ids_BT, place_N), None
        scores_NV, beside_N = getattr(model, self.learned_at)(ids_BT, place_N)
        return scores_NV, beside_N

    def command(self, folder: Path) -> str:
        """The flags that open a folder of this family, for the last line that a training says."""
        return f"--model {folder}" if self.opens_with is None else f"--model {self.opens_with} --checkpoint {folder}"

    def _example(self) -> str:
        name, value = next(iter(self.sizes.items()))
        return f"{name}={value}"


def _read(setting: str, text: str, like: Size, least: int) -> Size:
    """A setting's value, of the kind of the one it replaces; a whole number must not be below ``least``."""
    if isinstance(like, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(like):
        raise ConfigError(f"--set {setting!r}: {text!r} is no {type(like).__name__}; expected one, such as {like}")
    if isinstance(like, int) and not isinstance(like, bool) and value < least:
        raise ConfigError(f"--set {setting!r}: {text} is too small; expected {least} or more")
    number: Size = value
    return number


def _named(path: str) -> Callable[..., PreTrainedModel]:
    module, _, name = path.partition(":")
    found: Callable[..., PreTrainedModel] = getattr(importlib.import_module(module), name)
    return found


# Order and spelling of BEND's published tokenizer.json, which GPN's first release has too.
PADDING, MASK, UNKNOWN = "[PAD]", "[MASK]", "[UNK]"
_SPECIALS: Final = (PADDING, MASK, UNKNOWN)
LETTER_IDS: Final = (3, 4, 5, 6, 2, 1)  # A, C, G, T, N (unknown) and the mask
VOCABULARY_SIZE: Final = 7


def letter_vocabulary(letters: str) -> dict[str, int]:
    """Token ids: padding 0, mask 1, unknown 2, then the letters."""
    return {word: number for number, word in enumerate((*_SPECIALS, *letters))}


def write_letters(folder: Path, window_bp: int) -> None:
    """The tokenizer of a model whose context has no limit; it reads either case, and N as unknown."""
    _write(folder, longest=None)


def write_letters_of_a_window(folder: Path, window_bp: int) -> None:
    """The same for a model that reads no more letters than it was trained on."""
    _write(folder, longest=window_bp)


def _write(folder: Path, *, longest: int | None) -> None:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocab=letter_vocabulary("acgt"), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    limit = {} if longest is None else {"model_max_length": longest}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, mask_token=MASK, unk_token=UNKNOWN, **limit
    ).save_pretrained(folder)
