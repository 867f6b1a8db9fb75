"""Finds the folder of a published checkpoint: on disk, on the Hub, or behind a plain address.

>>> resolve_checkpoint("./no/such/folder")
Traceback (most recent call last):
bend_hf.errors.ModelError: there is no checkpoint folder at no/such/folder; give a folder with config.json and \
weights, or a Hub id such as 'org/name'

The token id that hides a token from a masked language model, where a checkpoint's files name it.

``LoadedModel.mask_id`` takes it from here unless the family's ``_load`` set it, as one without such files does.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "vocab.txt").write_text("[PAD]\\n[UNK]\\n[MASK]\\nACG\\n")
>>> mask_in_files(folder)
2
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bend_hf.data.download import cache_folder, download
from bend_hf.embedders._spec import ModelSpec
from bend_hf.errors import ModelError

# File names of published checkpoints, best first: transformers.utils SAFE_WEIGHTS_NAME and its kin; weights.ckpt is
# what LongSafari's plain HyenaDNA repositories hold.
WEIGHT_FILES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
)
# What is fetched beside the weights: configuration and tokenizer; never code.
SMALL_FILES: Final = ("*.json", "*.txt")
_IGNORE_PATTERNS: Final = ("*/*", "flax*", "tf_*", "training_args.bin", "optimizer*", "scheduler*", "rng_state*")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def resolve_checkpoint(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    with_weights: bool = True,
) -> Path:
    """The folder of a checkpoint, fetched from the Hub where it is not a folder already.

    Args:
        checkpoint: A folder, or a Hub id such as ``org/name``.
        revision: Commit, tag or branch on the Hub.
        with_weights: Whether weight files are needed; safetensors are fetched where there are any.

    Raises:
        ModelError: There is no such folder, or the Hub did not give it.
    """
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder
    name = str(checkpoint)
    if isinstance(checkpoint, Path) or folder.exists() or not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"there is no checkpoint folder at {folder}; give a folder with config.json and weights, or a Hub id "
            f"such as 'org/name'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(patterns: Sequence[str]) -> Path:
        ignored = list(_IGNORE_PATTERNS)
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=ignored))

    try:
        if not with_weights:
            return fetch(SMALL_FILES)
        folder = fetch((*SMALL_FILES, "*.safetensors"))
        return folder if any(folder.glob("*.safetensors")) else fetch((*SMALL_FILES, "*.bin", "*.ckpt"))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"cannot get checkpoint {name!r} (revision {revision or 'main'}) from the Hub: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}; it is "
            f"no local folder either. Check the name and the network, or download it elsewhere and give its "
            f"folder with checkpoint= (--checkpoint)"
        ) from error


def fetch_files(spec: ModelSpec, *, with_weights: bool = True) -> Path:
    """The folder of a model whose files are not on the Hub, fetched where they are not there already.

    The folder is ``models/<key>`` below ``$BEND_HF_CACHE`` (``~/.cache/bend_hf`` where that is not set).

    Raises:
        DownloadError: A file could not be fetched whole.
        ModelError: The declaration names no files.
    """
    if not spec.files:
        raise ModelError(
            f"model {spec.key!r} ({spec.source}: {spec.checkpoint}) has no files to fetch by itself; download them "
            f"and give their folder with checkpoint= (--checkpoint)"
        )
    folder = cache_folder() / "models" / spec.key
    for file in spec.files:
        if with_weights or file.name not in WEIGHT_FILES:
            download(file, folder)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint folder.

    Raises:
        ModelError: The file is missing or is no JSON object.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}; a checkpoint needs it") from None
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}; download it again") from error
    if not isinstance(loaded, dict):
        raise ModelError(f"{path} holds a {type(loaded).__name__}; expected an object")
    return loaded


def small_files(folder: Path) -> list[Path]:
    """Configuration and tokenizer files of a folder, by name; an index of weights is none."""
    found = {path for pattern in SMALL_FILES for path in folder.glob(pattern)}
    return sorted(path for path in found if path.name not in WEIGHT_FILES)


def sha256_of(paths: Sequence[Path]) -> str:
    """One checksum over the contents of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


_TEXTS: Final = ("[MASK]", "<mask>")


def mask_in_files(folder: Path) -> int | None:
    """The mask's id by ``vocab.txt`` or ``tokenizer.json``; None where neither names one."""
    vocabulary = folder / "vocab.txt"
    if vocabulary.is_file():
        words = vocabulary.read_text(encoding="utf-8").split()
        found = next((words.index(text) for text in _TEXTS if text in words), None)
        if found is not None:
            return found
    tokenizer = folder / "tokenizer.json"
    return _mask_in_tokenizer(json.loads(tokenizer.read_text(encoding="utf-8"))) if tokenizer.is_file() else None


def _mask_in_tokenizer(body: dict[str, Any]) -> int | None:
    for added in body.get("added_tokens") or []:
        if added.get("content") in _TEXTS:
            return int(added["id"])
    words = body.get("model", {}).get("vocab", {})
    if not isinstance(words, dict):
        words = {entry[0]: index for index, entry in enumerate(words)}
    return next((int(words[text]) for text in _TEXTS if text in words), None)
