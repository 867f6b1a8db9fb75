"""Load published weights into a network, completely or not at all.

Every key of the file must have a place in the network, and every parameter of the network a key in the file.
Exceptions are patterns that the family declares, and heads of other tasks, such as the classifier of a fine-tuned
model: they are left out, and a line of the log names them. ``_checkpoint_files`` finds the folder of a checkpoint.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Final, TypeVar

from bend_hf.embedders._checkpoint_files import WEIGHT_FILES
from bend_hf.embedders._checkpoint_files import read_json as read_json
from bend_hf.errors import ModelError
from bend_hf.files import parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn

Rename = Callable[[str], str]
ReadFiles = Callable[[Sequence[Path]], dict[str, "Tensor"]]
M = TypeVar("M", bound="nn.Module")

logger = logging.getLogger(__name__)

_NOT_WEIGHTS: Final = {
    b"version https://git-lfs": "is a git-lfs pointer, not the file it points to; run 'git lfs pull' in its folder",
    b"<!doctype": "is an HTML page, not weights; download it again",
    b"<html": "is an HTML page, not weights; download it again",
    b"<?xml": "is an XML page, not weights; download it again",
}

_WRAPPERS: Final = ("module.", "_orig_mod.")  # of DataParallel, DistributedDataParallel and torch.compile
_ARCHIVE: Final = b"PK\x03\x04"  # how archives begin that torch.save writes


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """The result of ``load_folder``.

    Attributes:
        files: The weight files.
        lacking: Keys of the model that the files lack and may lack.
    """

    files: tuple[Path, ...]
    lacking: tuple[str, ...]


def find_weights(folder: Path, *, first: str | None = None) -> list[Path]:
    """Find the weight files of a folder: one file, or all shards of an index.

    Args:
        folder: The folder.
        first: Name of a file that comes before the usual ones, if it exists.

    Raises:
        ModelError: The folder has no weight file, or a shard is missing.
    """
    for name in WEIGHT_FILES if first is None else (first, *WEIGHT_FILES):
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return [path]
        shards = _shards_in(path)
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, named by {name}; download the missing files")
        return [folder / shard for shard in shards]
    held = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise ModelError(f"{folder} has no weights; expected one of {', '.join(WEIGHT_FILES)}, found {held}")


def _shards_in(path: Path) -> list[str]:
    """Read the names of the weight files that an index lists, sorted; they lie in its folder.

    Raises:
        ModelError: It is not an index, or a name is not that of a file in the folder.
    """
    try:
        shards = set(parse_json(path.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not an index of weight files: {error!r}; download it again") from error
    odd = [name for name in shards if not _is_file_name(name)]
    if odd or not shards:
        found = f"the name {str(odd[0])[:80]!r}" if odd else "no name"
        raise ModelError(
            f"{path} is not an index of weight files: it holds {found}; expected names of files in its folder. "
            "Download it again."
        )
    return sorted(shards)


def _is_file_name(name: object) -> bool:
    longest_bytes = 255  # NAME_MAX of Linux
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and "\0" not in name
        and PurePath(name).name == name
        and len(name.encode("utf-8", "surrogatepass")) <= longest_bytes
    )


def read_state_dict(path: Path, *, nested: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of one file by name, floating-point tensors as float32.

    Args:
        path: A safetensors file, or a pickle of tensors.
        nested: Key of the state dict inside a ``.ckpt`` file.

    Raises:
        ModelError: The file is truncated, is not a weight file, or holds objects other than tensors.
    """
    import torch

    with _readable(path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    if nested is not None and isinstance(loaded, Mapping) and nested in loaded:
        loaded = loaded[nested]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        odd = (
            [str(key) for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
            if isinstance(loaded, Mapping)
            else [type(loaded).__name__]
        )
        raise ModelError(
            f"{path} is not a plain state dict: {', '.join(odd[:5])} is not a tensor; expected only names and tensors"
        )
    check_extent(loaded, path)
    return {str(key): value.to(torch.float32) if value.is_floating_point() else value for key, value in loaded.items()}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Check a weight file, and turn the errors of reading it into a ModelError."""
    import pickle

    check_weight_file(path)
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is not a plain state dict: it is damaged, or holds objects that could run code when they are "
            f"read. If you trust the file, convert it to safetensors"
        ) from error
    except Exception as error:  # safetensors and torch raise many kinds of errors for a truncated file
        raise ModelError(f"{path} cannot be read: {type(error).__name__}: {error}; download it again") from error


def stored_names(paths: Sequence[Path]) -> list[str]:
    """List the names of the tensors in weight files, sorted, without reading their numbers.

    Raises:
        ModelError: A file is damaged, or is not a weight file.
    """
    import torch

    names: set[str] = set()
    for path in paths:
        with _readable(path):
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="pt") as file:
                    names.update(file.keys())
            else:
                names.update(map(str, torch.load(path, map_location="meta", weights_only=True)))
    return sorted(names)


def stored_shapes(paths: Sequence[Path], keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of some tensors in weight files, without reading their numbers.

    Args:
        paths: The files.
        keys: Names of the tensors; those that no file has are left out.

    Raises:
        ModelError: A file is damaged, or is not a weight file.
    """
    import torch

    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with _readable(path):
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, framework="pt") as file:
                    here = set(file.keys()).intersection(keys)
                    shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in here}
            else:
                loaded = torch.load(path, map_location="meta", weights_only=True)
                shapes |= {key: tuple(loaded[key].shape) for key in keys if key in loaded}
    return shapes


def norm_key(key: str) -> str:
    """Give a norm the name of its weights in PyTorch; transformers 5.0 saves them under those of TensorFlow.

    >>> norm_key("encoder.LayerNorm.gamma")
    'encoder.LayerNorm.weight'
    """
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def check_weight_file(path: Path, *, is_part: bool = False) -> None:
    """Refuse a file that holds no weights, or inflates beyond its size.

    Args:
        path: The file.
        is_part: Whether it is the first of several files that were one.

    Raises:
        ModelError: It is a git-lfs pointer, a web page, empty, or an archive as ``check_archive`` says.
    """
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
        if not head:
            raise ModelError(f"{path} is empty; download it again")
        for mark, what in _NOT_WEIGHTS.items():
            if head.startswith(mark):
                raise ModelError(f"{path} {what}")
        if path.suffix != ".safetensors" and not is_part:
            check_archive(file, path)


def check_archive(file: IO[bytes], path: Path) -> None:
    """Refuse an archive of ``torch.save`` whose entries take more memory than the file has bytes.

    PyTorch stores entries as they are, and inflates compressed ones into memory before it looks at them.

    Args:
        file: The file, at any place.
        path: Its name, for messages.

    Raises:
        ModelError: Entries are compressed, or overlap, or the archive is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(_ARCHIVE)) != _ARCHIVE:
        return  # a pickle, as older versions of PyTorch write them
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:  # damaged; names not UTF-8; other versions
        raise ModelError(f"{path} cannot be read: {error}; download it again") from error
    declared = sum(entry.file_size for entry in entries)
    if declared > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(
            f"{path} has {size} bytes and inflates to {declared}; expected entries that are stored as they are, as "
            f"torch.save writes them. If you trust the file, load it with PyTorch and save it again"
        )


def check_extent(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that declare more values than their file has bytes.

    Raises:
        ModelError: A tensor repeats stored values, by a stride of 0 for instance.
    """
    size = path.stat().st_size
    for name, value in tensors.items():
        if value.numel() > size:
            raise ModelError(
                f"{path} has {size} bytes and declares {value.numel()} values for {name}; expected that they are "
                f"stored. Download it again"
            )


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    rename: Rename | None = None,
) -> list[str]:
    """Copy a state dict into a model and account for every key.

    A parameter that shares its storage with one that was loaded (tied weights) counts as loaded.

    Args:
        model: The network; its parameters are changed.
        state: Tensors by name.
        source: Name of the file, for messages.
        allow_missing: fnmatch patterns of model keys that the file may lack. Such a buffer keeps its computed value;
            such a parameter becomes nan, so that it cannot be used by mistake.
        allow_unexpected: Patterns of file keys that the model does not have, after renaming.
        rename: Maps a key of the file to a key of the model.

    Returns:
        The keys of the model that the file lacks. Heads that the model does not have are left out, see
        ``other_heads``.

    Raises:
        ModelError: Keys are missing or unexpected, two keys become the same, a shape differs, or tied weights differ.
    """
    import torch

    in_file = _renamed(state, rename or str, source)
    renamed = {key: state[name] for key, name in in_file.items()}
    own = model.state_dict(keep_vars=True)
    _check_tensors({in_file[key]: (value, own[key]) for key, value in renamed.items() if key in own}, source)
    read = {_storage(own[key]) for key in renamed if key in own}
    lacking = [key for key, value in own.items() if key not in renamed and _storage(value) not in read]
    missing = [key for key in lacking if not _matches(key, allow_missing)]
    unexpected = [in_file[key] for key in renamed if key not in own and not _matches(key, allow_unexpected)]
    heads = other_heads(unexpected, state, prefix=getattr(model, "base_model_prefix", ""), own=own)
    unexpected = [key for key in unexpected if key not in heads]
    if missing or unexpected:
        raise ModelError(
            f"{source} does not fit {type(model).__name__}: missing {_first(missing)}; unexpected "
            f"{_first(unexpected)}; expected the same keys. Is it a checkpoint of this family?"
        )
    log_heads(heads, source)
    _check_tied({in_file[key]: (value, own[key]) for key, value in renamed.items() if key in own}, source)
    with torch.no_grad():
        for key, value in renamed.items():
            if key in own:
                own[key].copy_(value)
        for key in lacking:
            if isinstance(own[key], torch.nn.Parameter):
                own[key].fill_(torch.nan)
    return lacking


def _renamed(keys: Iterable[str], rename: Rename, source: str | Path) -> dict[str, str]:
    """Return the key of the file for each key after renaming."""
    in_file: dict[str, str] = {}
    for key in keys:
        new = rename(key)
        if new in in_file:
            raise ModelError(f"two keys of {source} are renamed to {new!r}, the second is {key!r}; check the renaming")
        in_file[new] = key
    return in_file


def _check_tensors(pairs: Mapping[str, tuple[Tensor, Tensor]], source: str | Path) -> None:
    """Check shapes and kinds of tensors of a file against those of the model.

    Args:
        pairs: Tensor of the file and of the model, by key of the file.
        source: Name of the file, for messages.
    """
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(own.shape)}"
        for key, (value, own) in pairs.items()
        if own.shape != value.shape
    ]
    if shapes:
        raise ModelError(
            f"{source} does not have the shapes of its configuration: {_first(shapes)}; "
            f"config.json and weights do not belong together"
        )
    refuse_integers(
        {
            key: str(value.dtype).removeprefix("torch.")
            for key, (value, own) in pairs.items()
            if own.is_floating_point() and not value.is_floating_point()
        },
        source,
    )


def _check_tied(pairs: Mapping[str, tuple[Tensor, Tensor]], source: str | Path) -> None:
    """Check that the copies of a tied weight, which some files hold, are equal.

    Args:
        pairs: As for ``_check_tensors``.
        source: Name of the file, for messages.
    """
    import torch

    first_of: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for key, (value, own) in pairs.items():
        first = first_of.setdefault(_storage(own), key)
        if first == key or own.is_meta or not own.numel():
            continue
        if not torch.allclose(value, pairs[first][0], rtol=0, atol=0, equal_nan=True):
            raise ModelError(
                f"{source} holds other numbers in {key} than in {first}, which are one weight in this network; "
                f"expected copies. Check the fields of config.json that tie weights"
            )


def refuse_integers(dtype_of: Mapping[str, str], source: str | Path) -> None:
    """Raise a ModelError if a file holds integers for weights.

    Args:
        dtype_of: Name of the dtype of each such tensor, by key of the file.
        source: Name of the file, for messages.
    """
    if dtype_of:
        raise ModelError(
            f"{source} holds integers where weights are expected: "
            f"{_first([f'{key} ({dtype})' for key, dtype in dtype_of.items()])}. It is quantized, and its scales are "
            "not read; pass the checkpoint in floating point"
        )


def other_heads(
    unexpected: Iterable[str], keys: Iterable[str], *, prefix: str, own: Iterable[str] = ()
) -> tuple[str, ...]:
    """Find the keys of heads that a model does not have, such as the classifier of a fine-tuned copy.

    A model with a head stores its base model below a prefix, and its head outside. So a key outside the prefix does
    not change the base model. A file without the prefix holds a bare base model, and each of its keys counts.

    >>> keys = ["bert.encoder.weight", "bert.extra.weight", "classifier.weight"]
    >>> other_heads(keys[1:], keys, prefix="bert", own=["bert.encoder.weight", "cls.bias"])
    ('classifier.weight',)

    Args:
        unexpected: Keys of the file that the model does not have.
        keys: All keys of the file.
        prefix: Prefix of the base model, ``base_model_prefix``.
        own: Keys of the model; a key below a part of its own is not a head of another task.
    """
    inside = f"{prefix}."
    if not prefix or not any(key.startswith(inside) for key in keys):
        return ()
    parts = {key.partition(".")[0] for key in own}
    return tuple(key for key in unexpected if not key.startswith(inside) and key.partition(".")[0] not in parts)


def log_heads(heads: Sequence[str], source: str | Path) -> None:
    """Say which heads of a file are not used."""
    if heads:
        logger.info("%s: left out the unused head %s", source, _first(heads))


def read_files(paths: Sequence[Path], *, nested: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of all weight files of a folder; see ``read_state_dict``.

    Names that a wrapper of PyTorch gave, such as ``module.`` in front of every key, get their own form.
    """
    state: dict[str, Tensor] = {}
    for path in paths:
        state |= read_state_dict(path, nested=nested)
    while state and (wrapper := next((one for one in _WRAPPERS if all(key.startswith(one) for key in state)), None)):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def load_folder(
    model: nn.Module,
    folder: Path,
    *,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    rename: Rename | None = None,
    read: ReadFiles | None = None,
) -> LoadedWeights:
    """Load the weights of a folder into a model; see ``find_weights``, ``read_files`` and ``load_weights``."""
    paths = find_weights(folder)
    state = (read or read_files)(paths)
    lacking = load_weights(
        model,
        state,
        source=paths[0] if len(paths) == 1 else folder,
        allow_missing=allow_missing,
        allow_unexpected=allow_unexpected,
        rename=rename,
    )
    return LoadedWeights(files=tuple(paths), lacking=tuple(lacking))


def build_random(make: Callable[[], M], seed: int) -> M:
    """Build a model with weights drawn from a seed; torch's random state stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def build_empty(make: Callable[[], M]) -> M:
    """Build a model without drawing weights, which would take minutes for a large model; they are loaded next."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = make()
    tie = getattr(model, "tie_weights", None)
    if callable(tie):  # transformers skips tying together with drawing weights
        tie()
    return model


def use_named_outputs(model: M) -> M:
    """Let a network of transformers return named outputs, and hidden states only if they are asked for.

    A published ``config.json`` may say otherwise, for the code that trained the model.
    """
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "return_dict"):
        config.return_dict = True
        config.output_attentions = config.output_hidden_states = False
    return model


def _storage(value: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return value.data_ptr(), tuple(value.shape), tuple(value.stride())


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _first(keys: Sequence[str]) -> str:
    if not keys:
        return "none"
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
