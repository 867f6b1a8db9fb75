"""Which records are of one model, and what cards and tables call it.

Two records are of one model if the same weights, configuration and code were read, wherever the files lay, and are
used in the same way: layer, dtype, strands. A checkpoint that was replaced under its path is another model. Records of
earlier releases hold no hashes; they are recognized by all that they say of their model.

>>> short_hash("0123456789abcdef")
'0123456'
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from bend_hf.embedders import MODELS
from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.record import ResultRecord
from bend_hf.files import json_sha256
from bend_hf.types import Json

# What the registry tells of a model; a correction there makes no other model.
_DESCRIBES: Final = ("training_data", "license", "paper", "n_parameters", "context_tokens", "tokenization")
_PLACE: Final = ("checkpoint", "revision")  # where the files were read from
_USE: Final = ("model", "family", "layer", "dtype", "tf32", "compile", "random_init", "reverse_complement_average")


def has_content(record: ResultRecord) -> bool:
    """Whether a record holds the hashes of what its model was read from."""
    return record.model.get("configuration_sha256") is not None


def model_id(record: ResultRecord) -> str:
    """A hash that two records share if one model predicted, used in the same way; the protocol is left out."""
    model = record.model
    left_out = {"protocol"}
    if has_content(record):
        left_out |= {*_DESCRIBES, *_PLACE}
        if model.get("model") == model.get("checkpoint"):
            left_out.add("model")  # a path
    facts: dict[str, Json] = {name: value for name, value in model.items() if name not in left_out}
    return json_sha256(facts)


def own_weights(record: ResultRecord) -> str:
    """Say whose weights a record is of, if they are not the published ones of its model; empty if they are.

    What the registry states of a model (license, paper, training data) holds for the published weights alone.
    """
    model, tune = record.model, record.config.get("tune")
    if model.get("random_init"):
        return "random weights"
    name = str(model.get("model"))
    if record.is_control or (name in MODELS and MODELS.get(name).source == "none"):
        return ""  # nothing was read
    checkpoint = str(model.get("checkpoint"))
    own = ""
    if name not in MODELS:
        own = f"{_own_name(record)}, which bend_hf does not describe"
    elif checkpoint != MODELS.get(name).checkpoint:
        own = f"the user's own weights, {_own_name(record)}"
    if tune in (None, "head"):
        return own
    return (
        f"weights that {'LoRA' if tune == 'lora' else f'{tune} fine-tuning'} made of {own or f'{name}, {checkpoint}'}"
    )


def _own_name(record: ResultRecord) -> str:
    """The repository on the Hub, or the last part of a path."""
    checkpoint = str(record.model.get("checkpoint") or record.model.get("model"))
    on_hub = record.model.get("revision") and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", checkpoint)
    return checkpoint if on_hub else PurePath(checkpoint).name


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model of some records.

    Attributes:
        key: Equal for all records of the model.
        label: What cards and tables call it; no other model of the records has this name.
    """

    key: str
    label: str


def model_label(record: ResultRecord) -> str:
    """Name the model of one record together with everything that sets this use of it apart."""
    model = record.model
    label = str(model.get("model"))
    if record.is_control:
        return label
    details = []
    if weights := record.config.get("checkpoint"):
        details.append(f"own weights {PurePath(str(weights)).name}")
    if model.get("random_init"):
        details.append("random weights")
    if model.get("layer") not in (None, -1):
        details.append(f"layer {model['layer']}")
    if model.get("dtype") not in (None, "float32"):
        details.append(str(model["dtype"]))
    if model.get("tf32"):
        details.append("TF32")
    if model.get("compile"):
        details.append("compiled")
    if model.get("reverse_complement_average"):
        details.append("both strands averaged")
    return ", ".join([label, *details])


def models_of(records: Sequence[ResultRecord]) -> dict[str, NamedModel]:
    """Find the models of some records, by ``model_id``.

    A record without hashes is of a model with hashes if it names the same commit on the Hub. A model that was read
    from several paths has the shortest of its names. Models of one name are told apart by the revision, the weights,
    the configuration or the code, whichever differs. Controls keep their names: one has another size on each task.
    """
    pinned = defaultdict[str | None, set[str]](set)
    for record in records:
        if has_content(record):
            pinned[_pinned(record)].add(model_id(record))
    of_key: dict[str, list[ResultRecord]] = defaultdict(list)
    key_of = {}
    for record in records:
        own = model_id(record)
        same = set() if has_content(record) or _pinned(record) is None else pinned[_pinned(record)]
        key_of[own] = next(iter(same)) if len(same) == 1 else own
        of_key[key_of[own]].append(record)
    labels = {
        key: min((model_label(record) for record in found), key=lambda label: (len(label), label))
        for key, found in of_key.items()
    }
    alike: dict[str, list[str]] = defaultdict(list)
    for key, label in labels.items():
        alike[label].append(key)
    for label, keys in alike.items():
        if len(keys) > 1 and not of_key[keys[0]][0].is_control:
            labels |= _told_apart(label, {key: of_key[key] for key in sorted(keys)})
    return {own: NamedModel(key=key, label=labels[key]) for own, key in key_of.items()}


def _pinned(record: ResultRecord) -> str | None:
    """What says which files were read although a record may lack their hashes; None if nothing does."""
    model = record.model
    is_commit = re.fullmatch("[0-9a-f]{40}", str(model.get("revision"))) is not None
    if not (is_commit or not model.get("checkpoint")) or _runs_user_code(record):
        return None
    return json_sha256({name: model.get(name) for name in (*_PLACE, *_USE)})


def _runs_user_code(record: ResultRecord) -> bool:
    return record.model.get("family") == "own" or record.model.get("code_sha256") is not None


def _told_apart(label: str, models: Mapping[str, Sequence[ResultRecord]]) -> dict[str, str]:
    """Names for models of one name."""
    kinds = {
        "revision": "revision",
        "weights": "weights_sha256",
        "configuration": "configuration_sha256",
        "code": "code_sha256",
    }
    for word, name in kinds.items():
        found = {one: {str(record.model.get(name)) for record in records} for one, records in models.items()}
        single = [next(iter(values)) for values in found.values() if len(values) == 1]
        if len(set(single)) == len(models):
            return {
                one: f"{label}, {word} {short_hash(value) if value != 'None' else 'not recorded'}"
                for one, value in zip(found, single, strict=True)
            }
    return {one: f"{label}, model {short_hash(one)}" for one in models}


def short_hash(digest: str) -> str:
    """The first seven digits of a hash, as git shows them."""
    return digest[:7]


def records_of_model(records: Sequence[ResultRecord], model: str | None) -> list[ResultRecord]:
    """Select the records of one model by the name that cards and reports give it. Records of controls are left out.

    Args:
        records: Records of any models and controls.
        model: Name of the model; None selects the records of all models.

    Raises:
        ConfigError: There is no record of that model.
    """
    models = [record for record in records if not record.is_control]
    known = models_of(models)
    found = [record for record in models if model is None or known[model_id(record)].label == model]
    if not found:
        if not models:
            raise RecordError("all given records are of controls; give the records of a model")
        names = sorted({one.label for one in known.values()})
        raise ConfigError(f"--model {model!r}: no record of this model; {did_you_mean(str(model), names)}")
    return found
