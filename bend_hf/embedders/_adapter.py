"""Apply the low-rank adapter that lies next to a checkpoint, or refuse it: it changes what the model computes.

``save_pretrained`` of a fine-tuned model writes ``adapter_config.json`` and ``adapter_model.safetensors``. The adapter
is merged into the weights, so that the network keeps its form.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

log = logging.getLogger(__name__)
M = TypeVar("M", bound="nn.Module")

ADAPTER_CONFIG: Final = "adapter_config.json"  # CONFIG_NAME of peft
ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")  # SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
_PREFIX: Final = "base_model.model."


class _Keys(Protocol):
    """What ``load_state_dict`` of torch returns."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def adapter_files(folder: Path) -> tuple[Path, ...]:
    """Return the adapter's weights in a folder; empty if it holds no adapter.

    Raises:
        ModelError: Only a part of an adapter is there, or peft is not installed.

    >>> adapter_files(Path("no/such/folder"))
    ()
    """
    weights = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    described = (folder / ADAPTER_CONFIG).is_file()
    if not weights and not described:
        return ()
    if not weights or not described:
        held, lacking = (weights[0].name, ADAPTER_CONFIG) if weights else (ADAPTER_CONFIG, ADAPTER_WEIGHTS[0])
        raise ModelError(
            f"{folder} holds {held} but no {lacking}; add the file to apply the adapter, or remove {held} to use the "
            "model without it"
        )
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER_CONFIG}), and peft is not installed; pip install 'bend-hf[lora]', or "
            "remove the file to use the model without it"
        )
    return (weights[0],)


@contextlib.contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """Give a folder in which transformers finds no adapter, which it would apply by rules of its own.

    Keys that fit no layer are only logged there, and some versions load the base model from another place.
    """
    if not adapter_files(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="bend_hf_") as name:
        for path in folder.iterdir():
            if path.name not in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS):
                (Path(name) / path.name).symlink_to(path.resolve())
        yield Path(name)


def merge_adapter(network: M, folder: Path, *, uses_head: bool = True) -> M:
    """Merge the adapter of a folder into the weights of a network.

    Args:
        network: With the weights that the adapter was trained on.
        folder: Holds the adapter.
        uses_head: Whether what the network computes behind its base model is used, such as scores of tokens.

    Raises:
        ModelError: The adapter does not fit the network, or is of a kind that cannot be merged.
    """
    from peft import PeftConfig, inject_adapter_in_model, load_peft_weights, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    try:
        config = PeftConfig.from_pretrained(str(folder))
        state: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # peft raises many kinds of errors for a damaged file
        raise ModelError(f"{folder / ADAPTER_CONFIG} cannot be read: {type(error).__name__}: {error}") from error
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise ModelError(_cannot(folder, f"its kind {config.peft_type} is not merged here"))
    found = _host(network, state)
    if found is None:
        raise ModelError(_cannot(folder, f"{type(network).__name__} does not have the layers of {min(state)}"))
    host, prefix = found
    named = {key.removeprefix(_PREFIX).removeprefix(prefix): key for key in state}
    low_rank = {name: state[key] for name, key in named.items() if "lora_" in name}
    rest = sorted(set(named) - set(low_rank))
    own = _used_modules(network, host, uses_head=uses_head)
    held = [named[name] for name in rest if any(part in own for part in _parents(name))]
    if held:
        raise ModelError(_cannot(folder, f"it also replaces {held[0]}"))
    if _trains_biases(config.bias, host, low_rank):  # some versions of peft leave them out of the file
        raise ModelError(_cannot(folder, f"it also trains biases (bias {config.bias!r})"))
    others = [named[name] for name in rest]
    config.alpha_pattern, config.rank_pattern = (
        {name.removeprefix(prefix): value for name, value in patterns.items()}
        for patterns in (config.alpha_pattern, config.rank_pattern)
    )
    if others:
        log.warning("%s: the weights %s belong to the head of another task and are left out", folder, ", ".join(others))
    config.modules_to_save, config.task_type, config.inference_mode = None, None, True
    try:
        inject_adapter_in_model(config, host)
        loaded: _Keys = set_peft_model_state_dict(host, low_rank)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(_cannot(folder, f"{type(error).__name__}: {error}")) from error
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if missing or loaded.unexpected_keys:
        raise ModelError(_cannot(folder, f"missing {missing[:3]}, unexpected {list(loaded.unexpected_keys)[:3]}"))
    layers = [(name, module) for name, module in host.named_modules() if isinstance(module, LoraLayer)]
    for name, module in layers:
        module.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(host.get_submodule(parent), child, module.get_base_layer())
    log.info("%s: the adapter is merged into the weights", folder)
    return network


def _parents(name: str) -> list[str]:
    """Return the modules that a tensor lies in, by their names.

    >>> _parents("encoder.query.bias")
    ['encoder', 'encoder.query']
    """
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _host(network: nn.Module, state: Mapping[str, Tensor]) -> tuple[nn.Module, str] | None:
    """Return the network or its encoder, whichever has every layer that the adapter changes, and a prefix.

    The prefix stands in front of the names in the adapter and not in the host, if the adapter was trained on the same
    encoder below a head.
    """
    layers = {key.removeprefix(_PREFIX).partition(".lora_")[0] for key in state if "lora_" in key}
    encoder = getattr(network, "base_model", network)
    below_head = f"{getattr(encoder, 'base_model_prefix', '')}."
    for host, prefix in ((network, ""), (encoder, ""), (encoder, below_head)):
        below = all(layer.startswith(prefix) for layer in layers)
        if layers and below and {layer.removeprefix(prefix) for layer in layers} <= set(dict(host.named_modules())):
            return host, prefix
    return None


def _trains_biases(kind: str, host: nn.Module, low_rank: Iterable[str]) -> bool:
    """Whether a training with this setting of ``bias`` changed biases of the network."""
    if kind == "all":
        return any(name.endswith("bias") for name, _ in host.named_parameters())
    adapted = {name.partition(".lora_")[0] for name in low_rank} if kind == "lora_only" else set()
    return any(getattr(host.get_submodule(name), "bias", None) is not None for name in adapted)


def _used_modules(network: nn.Module, host: nn.Module, *, uses_head: bool) -> set[str]:
    """Return the modules with weights, by their names in the host, that embeddings or scores of tokens come from."""
    names = {name for name, module in host.named_modules() if any(True for _ in module.parameters(recurse=False))}
    encoder = getattr(network, "base_model", network)
    inside = next((f"{name}." for name, module in host.named_modules() if name and module is encoder), "")
    return names if uses_head else {name for name in names if name.startswith(inside)}


def _cannot(folder: Path, reason: str) -> str:
    return (
        f"the adapter in {folder} ({ADAPTER_CONFIG}) cannot be applied: {reason}. Merge it with peft's "
        "merge_and_unload(), save the merged model and pass its folder, or remove the file to use the model without it"
    )
