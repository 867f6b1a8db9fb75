"""Find the files of a published checkpoint: in a folder, on the Hub, or at another address.

>>> resolve_checkpoint("./no/such/folder")
Traceback (most recent call last):
bend_hf.errors.ModelError: there is no checkpoint folder no/such/folder; pass a folder ...
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from bend_hf.data.download import download
from bend_hf.embedders._spec import ModelSpec
from bend_hf.errors import ModelError, hub_errors
from bend_hf.files import cache_folder, file_sha256, parse_json, read_text

# File names of published weights, preferred first: SAFE_WEIGHTS_NAME and others of transformers.utils; weights.ckpt is
# the file of LongSafari's original HyenaDNA repositories.
WEIGHT_FILES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
)
PICKLES: Final = ("*.bin", "*.ckpt")  # fetched if a repository has no safetensors
# Configuration and tokenizer, which are fetched with the weights; never code.
SMALL_FILES: Final = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken")
_IGNORE_PATTERNS: Final = ("*/*", "flax*", "tf_*", "training_args.bin", "optimizer*", "scheduler*", "rng_state*")

_LISTS: Final = ("WordPiece", "WordLevel")  # models of the tokenizers library that are a list of tokens
_MASK_TOKENS: Final = ("[MASK]", "<mask>")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


_fetches: ContextVar[bool] = ContextVar("_fetches", default=True)


@contextlib.contextmanager
def without_fetching() -> Iterator[None]:
    """Download no file until the block ends; a checkpoint that is not on this machine raises ``ModelError``."""
    before = _fetches.set(False)
    try:
        yield
    finally:
        _fetches.reset(before)


def check_place(checkpoint: str | Path) -> Path:
    """Check that a checkpoint is a folder, or could be the name of a repository on the Hub; return it as a path.

    Raises:
        ModelError: It is neither.
    """
    folder = Path(checkpoint).expanduser()
    is_hub_id = isinstance(checkpoint, str) and not folder.exists() and _HUB_ID.fullmatch(checkpoint)
    if not folder.is_dir() and not is_hub_id:
        raise ModelError(
            f"there is no checkpoint folder {folder}; pass a folder with config.json and weights, or a Hub id "
            f"such as 'org/name'"
        )
    return folder


def resolve_checkpoint(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    with_weights: bool = True,
    into: Path | None = None,
    pickles: Sequence[str] = PICKLES,
) -> Path:
    """Return the folder of a checkpoint, and download it from the Hub if it is not a folder.

    Args:
        checkpoint: A folder, or a Hub id such as ``org/name``.
        revision: Commit, tag or branch on the Hub.
        with_weights: Whether weight files are needed; safetensors are preferred.
        into: Folder to download into; None for the cache of the Hub.
        pickles: Patterns of the files to fetch if there are no safetensors.

    Raises:
        ModelError: There is no such folder, and the download failed.
    """
    folder = check_place(checkpoint)
    if folder.is_dir():
        return folder
    name = str(checkpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def fetch(patterns: Sequence[str]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(_IGNORE_PATTERNS),
                local_files_only=not _fetches.get(),
                local_dir=into,
            )
        )

    try:
        if not with_weights:
            return fetch(SMALL_FILES)
        folder = fetch((*SMALL_FILES, "*.safetensors"))
        return folder if any(folder.glob("*.safetensors")) else fetch((*SMALL_FILES, *pickles))
    except hub_errors(HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"cannot download checkpoint {name!r} (revision {revision or 'main'}) from the Hub: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}. Check the "
            f"name and the network, or pass the folder of a copy with checkpoint= (--checkpoint)"
        ) from error


def fetch_files(spec: ModelSpec, *, with_weights: bool = True) -> Path:
    """Return the folder of a model whose files are not on the Hub, and download the files that it lacks.

    The folder is ``models/<key>`` below ``$BEND_HF_CACHE`` (default: ``~/.cache/bend_hf``).

    Raises:
        DownloadError: A download failed.
        ModelError: The declaration names no files.
    """
    if not spec.files:
        raise ModelError(
            f"model {spec.key!r} ({spec.source}: {spec.checkpoint}) declares no files to download; download them "
            f"yourself and pass their folder with checkpoint= (--checkpoint)"
        )
    folder = cache_folder("models") / spec.key
    for file in spec.files:
        if with_weights or file.name not in WEIGHT_FILES:
            if not _fetches.get() and not (folder / file.name).is_file():
                raise ModelError(f"{folder / file.name} is not on this machine; download it first")
            download(file, folder)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a checkpoint folder. Its values may be of any type.

    Raises:
        ModelError: The file is missing or is not a JSON object.
    """
    try:
        loaded = parse_json(read_text(path))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; download the complete checkpoint") from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}; download it again") from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} holds a {type(loaded).__name__}; expected a JSON object")
    return loaded


_SIZE: Final = re.compile(
    r"(?:.*_)?(?:hidden_size|intermediate_size|vocab_size|input_size|starting_size|width|positions|position_embeddings|attention_heads|heads|"
    r"layers|kmers?|stride|word|multiple)|d_model|d_inner|n_layer|n_head|n_embd"
)
_LARGEST: Final = (  # of sizes whose names match; far beyond any published model
    (re.compile(r"(?:.*_)?kmer"), 32),
    (re.compile(r"(?:.*_)?(?:layers|kmers|word|heads|starting_size)|n_layer|n_head"), 10_000),
    (_SIZE, 1 << 24),
)
_NO_SIZE: Final = {"max_relative_positions": -1}  # DeBERTa: as many as max_position_embeddings
_HAS_WEIGHTS: Final = re.compile(r"(?:.*_)?(?:hidden_size|vocab_size|width|layers)|d_model|n_layer|n_embd")


def check_sizes(folder: Path, *, with_weights: bool) -> None:
    """Check the sizes in ``config.json`` before a network of these sizes is built.

    Args:
        folder: The checkpoint.
        with_weights: Whether the folder holds the weights; a size is a number of weights at least.

    Raises:
        ModelError: A size is negative, far beyond any model, or larger than the weights.
    """
    path = folder / "config.json"
    if not path.is_file():
        return
    n_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if with_weights else None
    waiting: list[dict[str, Any]] = [read_json(path)]
    while waiting:
        for name, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append(value)
            if not isinstance(value, int) or isinstance(value, bool) or not _SIZE.fullmatch(name):
                continue
            largest = next(limit for pattern, limit in _LARGEST if pattern.fullmatch(name))
            if not 0 <= value <= largest and value != _NO_SIZE.get(name):
                raise ModelError(
                    f"{path}: {name} is {value:,}; expected a number from 0 to {largest:,}. Download it again"
                )
            if n_bytes is not None and _HAS_WEIGHTS.fullmatch(name) and value > n_bytes:
                raise ModelError(
                    f"{path}: {name} is {value:,}, but all its files hold {n_bytes:,} bytes; expected the "
                    "configuration of these weights. Download the checkpoint again"
                )


def small_files(folder: Path) -> list[Path]:
    """List the configuration and tokenizer files of a folder, sorted by name."""
    found = {path for pattern in SMALL_FILES for path in folder.glob(pattern)}
    return sorted(path for path in found if path.name not in WEIGHT_FILES)


def sha256_of(paths: Sequence[Path], *, with_names: bool = False) -> str:
    """Hash the contents of several files, in order, and their names if those decide how the files are read."""
    total = hashlib.sha256()
    for path in paths:
        if with_names:
            total.update(path.name.encode() + b"\0")
        total.update(bytes.fromhex(file_sha256(path)))
    return total.hexdigest()


def read_vocabulary(folder: Path) -> list[str]:
    """Read the tokens of a vocabulary in the order of their ids, from ``vocab.txt`` or ``tokenizer.json``.

    Published checkpoints have ``vocab.txt``. A copy that transformers 5 saved has only ``tokenizer.json``.

    Raises:
        ModelError: The folder has neither file, or ``tokenizer.json`` has no vocabulary.
    """
    lines = folder / "vocab.txt"
    if lines.is_file():
        return _lines_of(lines)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder} has neither vocab.txt nor tokenizer.json; expected one of them. Download the complete checkpoint"
        )
    tokenizer = read_json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise ModelError(f"{folder}/tokenizer.json has no vocabulary; download it again")
    added = {one["content"]: one["id"] for one in tokenizer.get("added_tokens") or []}
    id_of = {**vocabulary, **added}
    tokens = [""] * (max(id_of.values()) + 1)
    for token, number in id_of.items():
        tokens[number] = token
    return tokens


def _lines_of(path: Path) -> list[str]:
    """Return the lines of ``vocab.txt``; a blank one counts, as the number of a line is the id of its token."""
    return [line.strip() for line in read_text(path).rstrip().split("\n")]


_NO_LIMIT: Final = 1 << 40  # transformers writes 1e30 as the model_max_length of a tokenizer without a limit


def read_model_max_length(folder: Path) -> int | None:
    """Read the number of tokens in the longest input, from ``tokenizer_config.json``; None if no limit is stated.

    Raises:
        ModelError: The limit is not a number of tokens.
    """
    path = folder / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.is_file() else None
    if length is None or (isinstance(length, int | float) and length > _NO_LIMIT):
        return None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ModelError(f"{path} has the model_max_length {length!r}; expected a number of tokens. Download it again")
    return length


def has_merges(folder: Path) -> bool:
    """Whether ``tokenizer.json`` cuts a sequence by learned merges or scores, rather than by a list of tokens.

    transformers 5 writes ``tokenizer.json`` in place of ``vocab.txt``, as a ``WordPiece`` model.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return False
    model = read_json(path).get("model")
    return not isinstance(model, dict) or model.get("type") not in _LISTS


def mask_in_files(folder: Path) -> int | None:
    """Read the token id of the mask from ``vocab.txt`` or ``tokenizer.json``; None if neither names one."""
    vocabulary = folder / "vocab.txt"
    if vocabulary.is_file():
        tokens = _lines_of(vocabulary)
        found = next((tokens.index(mask) for mask in _MASK_TOKENS if mask in tokens), None)
        if found is not None:
            return found
    tokenizer = folder / "tokenizer.json"
    return _mask_in_tokenizer(read_json(tokenizer)) if tokenizer.is_file() else None


def _mask_in_tokenizer(body: dict[str, Any]) -> int | None:
    for added in body.get("added_tokens") or []:
        if added.get("content") in _MASK_TOKENS:
            return int(added["id"])
    ids = body.get("model", {}).get("vocab", {})
    if not isinstance(ids, dict):
        ids = {entry[0]: index for index, entry in enumerate(ids)}
    return next((int(ids[mask]) for mask in _MASK_TOKENS if mask in ids), None)
