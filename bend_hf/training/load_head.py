"""Load a trained head from its file, from the record of its run, from a folder, or from the Hub.

>>> from pathlib import Path
>>> HEADS_FOLDER
'heads'
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, Unpack

from torch import nn

from bend_hf.config import ComputeFlags, flags_of
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import (
    BendError,
    ConfigError,
    ModelError,
    RecordError,
    RegistryError,
    SourceError,
    did_you_mean,
    hub_errors,
)
from bend_hf.evaluation.record import member, read_record
from bend_hf.files import file_sha256
from bend_hf.registry import names_file
from bend_hf.training.checkpoints import load_trained, trained_state
from bend_hf.training.finetuning import LORA, TunedModel, open_for_tuning
from bend_hf.training.heads import HEADS, build_head, head_entry
from bend_hf.training.kept_head import SUFFIX, HeadConfig, KeptHead, model_flags, read_config, read_head
from bend_hf.training.trained_head import TrainedHead

if TYPE_CHECKING:
    from bend_hf.embedders.user_model import EmbedFunction, UserModel
    from bend_hf.types import Json

log = logging.getLogger(__name__)

AnyEmbedder: TypeAlias = "str | Path | Embedder | UserModel | EmbedFunction | None"


class ComputeOptions(TypedDict, total=False):
    """The fields of ``config.ComputeFlags`` as keywords."""

    device: str | None
    batch_tokens: int | None
    compile: bool


HEADS_FOLDER: Final = "heads"  # in the repository of a model card
# What must be the same as in the training; other entries of an identity are names and versions.
_COMPARED: Final = {
    "weights": "weights",
    "configuration": "configuration or tokenizer",
    "user_source": "code",
    "user_weights": "weights",
    "declared": "declaration",
    "protocol": "protocol",
    "layer": "layer",
    "dtype": "dtype",
    "tf32": "use of TF32",
    "overlap_tokens": "overlap of chunks",
    "reverse_complement_average": "average over both strands",
}


def load_head(
    source: str | Path,
    *,
    task: str | None = None,
    embedder: AnyEmbedder = None,
    checkpoint: str | Path | None = None,
    revision: str | None = None,
    **compute: Unpack[ComputeOptions],
) -> TrainedHead:
    """Load a trained head with its embedder.

    Args:
        source: The ``.safetensors`` file that a run wrote, its record (``.json``), a folder that holds one, or a
            repository on the Hub with a model card (``owner/name``, or ``owner/name/heads/file``).
        task: Which head, by its task, if a folder or repository holds several.
        embedder: The embedder, if it lies elsewhere than in the training: a name, a folder, a ``.py`` file, or an
            object with ``embed``.
        checkpoint: Folder or Hub id of the embedder's weights, if they lie elsewhere than in the training.
        revision: Commit, tag or branch of the repository.
        compute: Where and how fast the embedder computes: ``device``, ``batch_tokens`` and ``compile``; see
            ``config.ComputeFlags``. Whether it is compiled is by default as in the training.

    Raises:
        ConfigError: A keyword is unknown or out of range, or has no effect on the embedder.
        SourceError: There is no head, or there are several.
        RecordError: The file is no head, or differs from what its record states.
        ModelError: The embedder is not the one of the training: its weights, files or settings differ.
    """
    known = sorted(flags_of(ComputeFlags))
    for name in compute:
        if name not in known:
            raise ConfigError(f"load_head has no setting {name!r}; {did_you_mean(name, known)}")
    given = ComputeFlags(**compute)
    path, from_hub = _find(source, task, revision)
    kept = read_head(path)
    if task is not None and kept.config.task != task:
        raise SourceError(f"{path} holds a head of {kept.config.task!r}, not of {task!r}; give another file")
    _check_code_is_here(kept.config, from_hub=from_hub, has_embedder=embedder is not None)
    opened = _open_embedder(kept.config, embedder, checkpoint, given)
    _check_identity(kept.config, opened, path)
    return _assemble(kept, opened, path)


def _find(source: str | Path, task: str | None, revision: str | None) -> tuple[Path, bool]:
    """Return the file of a head, and whether it comes from the Hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path, task), False
    if path.suffix == ".json" and path.is_file():
        return _of_record(path), False
    if path.is_file():
        return path, False
    owner, _, rest = str(source).partition("/")
    name, _, inside = rest.partition("/")
    on_hub = owner and name and (not inside or inside.startswith(f"{HEADS_FOLDER}/"))
    if isinstance(source, Path) or not on_hub or Path(name).suffix in (SUFFIX, ".json"):
        raise SourceError(
            f"{path} does not exist; give the {SUFFIX} file of a head, its record, a folder, or OWNER/NAME on the Hub"
        )
    return _on_hub(f"{owner}/{name}", inside, task, revision), True


def _of_record(path: Path) -> Path:
    record = read_record(path)
    if not record.kept:
        why = "its run was made without --keep" if record.kept is not None else "it is of an earlier release"
        raise SourceError(f"{path} names no head ({why}); repeat the run with --keep best --force")
    file = path.with_name(str(member(record.kept, "file")))
    if not file.is_file():
        raise SourceError(
            f"{file}, which {path.name} names, does not exist; restore it, or repeat the run with --force"
        )
    if file_sha256(file) != member(record.kept, "sha256"):
        raise RecordError(f"{file} differs from what {path.name} states (sha256); repeat the run with --force")
    return file


def _in_folder(folder: Path, task: str | None) -> Path:
    found = []
    for path in sorted([*folder.glob(f"*{SUFFIX}"), *(folder / HEADS_FOLDER).glob(f"*{SUFFIX}")]):
        try:
            config = read_config(path)
        except RecordError as error:
            log.debug("%s", error)
            continue
        found.append((path, config.task))
    return _only_one(found, task, str(folder))


def _only_one(found: Sequence[tuple[Path, str]], task: str | None, place: str) -> Path:
    chosen = [path for path, of_task in found if task in (None, of_task)]
    if len(chosen) == 1:
        return chosen[0]
    tasks = sorted({of_task for _, of_task in found})
    if not found:
        raise SourceError(f"{place} holds no trained head; 'bend-hf train' writes one next to each record")
    if not chosen:
        raise SourceError(f"{place} holds no head of {task!r}; {did_you_mean(str(task), tasks)}")
    names = ", ".join(path.name for path in chosen[:5])
    remedy = "name one of its files" if len(tasks) == 1 or task else f"choose one with --task, such as {tasks[0]}"
    raise SourceError(f"{place} holds {len(chosen)} heads ({names}); {remedy}")


def _on_hub(repo: str, inside: str, task: str | None, revision: str | None) -> Path:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        api = HfApi()
        commit = api.model_info(repo, revision=revision).sha
        if inside:
            return Path(api.hf_hub_download(repo, inside, revision=commit))
        names = api.list_repo_files(repo, revision=commit)
        heads = [name for name in names if name.endswith(SUFFIX) and name.startswith(f"{HEADS_FOLDER}/")]
        found = [(Path(name), Path(name).name.partition("__")[0]) for name in sorted(heads)]
        chosen = _only_one(found, task, repo)
        return Path(api.hf_hub_download(repo, chosen.as_posix(), revision=commit))
    except hub_errors(HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"the head cannot be read from {repo!r} on the Hub ({reason}); check the name and the network, or give a "
            "file"
        ) from error


def _check_code_is_here(config: HeadConfig, *, from_hub: bool, has_embedder: bool) -> None:
    """Check that nothing has to be run that a file from elsewhere names.

    Raises:
        SourceError: The head or its embedder is a user's code, and the file comes from the Hub.
        ConfigError: The embedder was an object in memory, and none is given.
    """
    if from_hub and config.head_file is not None:
        raise SourceError(
            f"this head is built by the file {Path(config.head_file).name!r} of its author, and no file is run that a "
            "repository names. Get that file, download the head, and load it from where the file lies."
        )
    model = str(config.model.get("model"))
    if has_embedder:
        return
    if config.is_object:
        raise ConfigError(f"the head reads {model}, which was an object in memory; pass it as embedder=")
    if from_hub and names_file(model):
        raise SourceError(
            f"this head reads {Path(model).name!r}, a file of its author, and no file is run that a repository names; "
            "pass the embedder as embedder="
        )


def _open_embedder(
    config: HeadConfig,
    embedder: AnyEmbedder,
    checkpoint: str | Path | None,
    given: ComputeFlags,
) -> Embedder:
    if isinstance(embedder, Embedder):
        return embedder
    if embedder is not None and not isinstance(embedder, str | Path):
        from bend_hf.embedders.user_model import UserEmbedder

        return UserEmbedder(embedder)
    stored = model_flags(config)
    flags = replace(
        stored, device=given.device, batch_tokens=given.batch_tokens, compile=given.compile or stored.compile
    )
    if embedder is not None:
        flags = replace(flags, model=str(embedder), checkpoint=None)
    if checkpoint is not None:
        flags = replace(flags, checkpoint=str(checkpoint))
    try:
        return open_model(flags, lazy=True)
    except (ModelError, RegistryError) as error:
        raise ModelError(
            f"the head of {config.task} reads {flags.checkpoint or flags.model}, which cannot be opened ({error}). "
            "Pass embedder= or checkpoint= with the place where it lies."
        ) from error


def _check_identity(config: HeadConfig, embedder: Embedder, path: Path) -> None:
    """Check that an embedder computes what the head was trained on, by the content of its files and its settings.

    Raises:
        ModelError: Something differs.
    """
    identity = embedder.identity
    for name, text in _COMPARED.items():
        wanted, found = config.identity.get(name), identity.get(name)
        if name == "declared" and not (wanted and found):  # the same files under another name
            continue
        if wanted != found:
            raise ModelError(
                f"{embedder.name} is not the embedder that {path.name} was trained on: its {text} differs (now "
                f"{_short(found)}, expected {_short(wanted)}). Pass the original as embedder= or checkpoint=."
            )


def _short(value: str | None) -> str:
    return "none" if not value else value if len(value) <= 20 else f"{value[:12]}..."


def _assemble(kept: KeptHead, embedder: Embedder, path: Path) -> TrainedHead:
    """Build the module, and fill it with the weights of the file."""
    config = kept.config
    try:
        if config.head_file is not None:
            HEADS.add(HEADS.get(config.head_file), from_file=True)
        source = (head_entry(config.head) or {}).get("source_sha256")
        if source != config.head_source:
            raise ConfigError(f"the code of the head {config.head.key!r} is not that of the training")
        module: nn.Module = build_head(config.head, config.width, config.n_outputs)
    except (BendError, TypeError) as error:
        raise RecordError(f"{path}: its head cannot be built ({error}); restore the file that declares it") from error
    if config.tune != "head":
        if config.lora and dict(config.lora) != dict(LORA):
            raise RecordError(f"{path}: its adapters are of the form {dict(config.lora)}, expected {dict(LORA)}")
        embedder = open_for_tuning(embedder, config.tune)
        module = TunedModel(embedder, module)
    elif embedder.width != config.width:
        raise ModelError(f"{embedder.name} has width {embedder.width}, but {path.name} reads width {config.width}")
    expected: dict[str, Json] = {name: list(value.shape) for name, value in trained_state(module).items()}
    found: dict[str, Json] = {name: list(value.shape) for name, value in kept.tensors.items()}
    if expected != found:
        name = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))[0]
        raise RecordError(
            f"{path}: its weights do not fit its head: {name} has the shape {found.get(name)}, expected "
            f"{expected.get(name)}; the file is damaged"
        )
    load_trained(module, kept.tensors)
    return TrainedHead(config, module, embedder)
