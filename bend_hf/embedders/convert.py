"""Convert published weights to sharded safetensors once, so that a model opens quickly and block by block.

    convert("evo2_7b", Path("evo2_7b"))                    # then: load_embedder("evo2_7b", checkpoint="evo2_7b")

Tensors are read and written one after the other: the memory holds one tensor, whatever the size of the checkpoint.
Names, types and values stay those of the published file. Entries that the network does not read are left out; scales of
FP8 projections become tensors of their own.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.errors import ConfigError, ModelError
from bend_hf.files import atomic_path, explain_write_errors, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._tensor_files import TensorFiles
    from bend_hf.embedders.evo2 import Evo2Embedder

logger = logging.getLogger(__name__)

SHARD_BYTES: Final = 5_000_000_000  # as huggingface_hub cuts large models
_INDEX: Final = "model.safetensors.index.json"
_DTYPE_NAMES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of a converted checkpoint.

    Attributes:
        name: File name.
        tensors: The names of its tensors, in the order of their bytes.
    """

    name: str
    tensors: tuple[str, ...]


def plan_shards(n_bytes_of: Mapping[str, int], shard_bytes: int) -> list[Shard]:
    """Distribute tensors over shards in their order; a tensor that is larger than a shard has one of its own.

    >>> [shard.tensors for shard in plan_shards({"a": 4, "b": 4, "c": 9, "d": 1}, 8)]
    [('a', 'b'), ('c',), ('d',)]
    """
    groups: list[list[str]] = []
    filled = math.inf
    for name, n_bytes in n_bytes_of.items():
        if filled + n_bytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += n_bytes
    return [
        Shard(name=f"model-{number:05d}-of-{len(groups):05d}.safetensors", tensors=tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def convert(
    model: str,
    out: Path,
    *,
    checkpoint: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
    log: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Write the weights of a model as sharded safetensors with their index and configuration.

    The index is written last. If a conversion was interrupted, the next one keeps the shards that are complete.

    Args:
        model: Registry key of a model whose published files are converted.
        out: Folder to write.
        checkpoint: Folder or Hub id of the published files; None: the declared ones.
        shard_bytes: Bytes of one shard at most, unless a single tensor is larger.
        log: Called with the name of each finished file.

    Returns:
        The files, the index last.

    Raises:
        ConfigError: The model needs no conversion, the folder holds converted weights, or the disk is too small.
        ModelError: The published files do not fit the model.
        RecordError: A file cannot be written.
    """
    from bend_hf.embedders import MODELS
    from bend_hf.embedders._tensor_files import bytes_of, open_tensors
    from bend_hf.embedders.evo2 import check_keys, evo2_weights, fp8_scales

    embedder = _unloaded(model, checkpoint)
    if (out / _INDEX).exists():
        raise ConfigError(f"{out} holds converted weights already; remove them, or give another --out")
    fields = {"model_type": "evo2", "max_seqlen": MODELS.get(model).context_tokens, **embedder._fields()}
    own = embedder.empty_network().state_dict()
    paths = evo2_weights(embedder.folder)
    with open_tensors(paths) as tensors:
        check_keys(tensors, own, paths[0])
        scales = fp8_scales(tensors)
        n_bytes_of = {name: bytes_of(tensors.dtypes[name], tensors.shapes[name]) for name in own}
        n_bytes_of |= {name: value.nbytes for name, value in scales.items()}
        out.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out).free
        if sum(n_bytes_of.values()) > free:
            raise ConfigError(
                f"{out} has {free / 1e9:.1f} GB free; the converted weights need {sum(n_bytes_of.values()) / 1e9:.1f} "
                "GB. Give an --out on another disk"
            )
        shards = plan_shards(n_bytes_of, shard_bytes)
        written = []
        for shard in shards:
            _write_shard(out / shard.name, shard.tensors, tensors, scales)
            written.append(out / shard.name)
            log(shard.name)
    write_text(out / "config.json", json.dumps(fields, indent=1))
    index = {
        "metadata": {"total_size": sum(n_bytes_of.values())},
        "weight_map": {name: shard.name for shard in shards for name in shard.tensors},
    }
    return [*written, out / "config.json", write_text(out / _INDEX, json.dumps(index, indent=1))]


def _unloaded(model: str, checkpoint: str | Path | None) -> Evo2Embedder:
    """Open the embedder of a model without its weights."""
    from bend_hf.embedders import MODELS, load_embedder
    from bend_hf.embedders._loaded_model import lazily
    from bend_hf.embedders.evo2 import Evo2Embedder

    spec = MODELS.get(model)
    if spec.embedder != "evo2:Evo2Embedder":
        known = [one.key for one in MODELS if one.embedder == "evo2:Evo2Embedder"]
        raise ConfigError(f"{spec.key} needs no conversion; expected one of {', '.join(known)}")
    with lazily():
        embedder = load_embedder(model, checkpoint=checkpoint)
    if not isinstance(embedder, Evo2Embedder):
        raise ModelError(f"{model} is a {type(embedder).__name__}; expected an Evo 2")
    return embedder


def _write_shard(path: Path, names: Sequence[str], tensors: TensorFiles, scales: Mapping[str, Tensor]) -> None:
    """Write a safetensors file tensor by tensor; the library's writer would hold all of them in memory.

    A file with the same header and size is complete and stays.
    """
    import torch

    from bend_hf.embedders._tensor_files import bytes_of

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in names:
        dtype = scales[name].dtype if name in scales else tensors.dtypes[name]
        shape = tuple(scales[name].shape) if name in scales else tensors.shapes[name]
        end = start + bytes_of(dtype, shape)
        kind = _DTYPE_NAMES[str(dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    text = len(text).to_bytes(8, "little") + text
    if path.is_file() and path.stat().st_size == len(text) + start:
        with path.open("rb") as file:
            if file.read(len(text)) == text:
                return
    with explain_write_errors(path), atomic_path(path, durable=True) as part, part.open("wb") as file:
        file.write(text)
        for name in names:
            value = scales[name] if name in scales else tensors.read(name)
            file.write(value.contiguous().view(torch.uint8).numpy().data)
