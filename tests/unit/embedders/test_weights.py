"""Weights load completely or raise with the reason."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from bend_hf.data.download import RemoteFile
from bend_hf.embedders._checkpoint_files import SMALL_FILES, fetch_files, read_json, resolve_checkpoint, sha256_of
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._tensor_files import open_tensors
from bend_hf.embedders._weights import (
    build_empty,
    build_random,
    find_weights,
    load_folder,
    load_weights,
    read_state_dict,
)
from bend_hf.errors import ModelError


class Tied(nn.Module):
    """Two layers that share a weight, a head and a computed buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(2, 3)
        self.register_buffer("table", torch.arange(4.0))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: torch.full_like(value, 0.5) for key, value in model.state_dict().items()}


def test_all_keys_are_read() -> None:
    model = Tied()
    assert load_weights(model, state_of(model), source="file") == []
    assert all((value == 0.5).all() for value in model.state_dict().values())


def test_missing_key_is_named() -> None:
    state = state_of(Tied())
    del state["head.bias"]
    with pytest.raises(ModelError, match=r"file does not fit Tied: missing head.bias; unexpected none"):
        load_weights(Tied(), state, source="file")


def test_unexpected_key_is_named() -> None:
    state = state_of(Tied()) | {"pooler.weight": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"missing none; unexpected pooler.weight"):
        load_weights(Tied(), state, source="file")


def test_allowed_keys_pass_and_an_unread_parameter_cannot_be_used_unseen() -> None:
    model = Tied()
    state = state_of(model) | {"pooler.weight": torch.zeros(1)}
    for key in ("head.weight", "head.bias", "table"):
        del state[key]
    lacking = load_weights(
        model, state, source="file", allow_missing=("head.*", "table"), allow_unexpected=("pooler.*",)
    )
    assert sorted(lacking) == ["head.bias", "head.weight", "table"]
    assert model.head.weight.isnan().all()
    assert model.table.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_tied_weight_that_is_stored_once_counts_for_both() -> None:
    model = Tied()
    state = state_of(model)
    del state["second.weight"]
    assert load_weights(model, state, source="file") == []
    assert (model.second.weight == 0.5).all()


def test_copies_of_a_tied_weight_must_be_equal() -> None:
    state = state_of(Tied())
    assert load_weights(Tied(), state, source="file") == []
    state["second.weight"] = state["first.weight"] + 1
    with pytest.raises(ModelError, match=r"file holds other numbers in second.weight than in first.weight"):
        load_weights(Tied(), state, source="file")


def test_other_shape_is_named() -> None:
    state = state_of(Tied()) | {"head.bias": torch.zeros(4)}
    with pytest.raises(ModelError, match=r"head.bias \(4,\) instead of \(3,\)"):
        load_weights(Tied(), state, source="file")


def test_renaming_reaches_the_model_and_doubles_raise() -> None:
    model = Tied()
    state = {f"model.{key}": value for key, value in state_of(model).items()}
    load_weights(model, state, source="file", rename=lambda key: key.removeprefix("model."))
    assert (model.head.bias == 0.5).all()
    with pytest.raises(ModelError, match=r"two keys of file are renamed to 'head.bias'"):
        load_weights(
            model, state | {"head.bias": torch.zeros(3)}, source="file", rename=lambda key: key.removeprefix("model.")
        )


def test_half_precision_is_read_as_float32_and_integers_stay(tmp_path: Path) -> None:
    save_file(
        {"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.ones(1, dtype=torch.int64)}, tmp_path / "x.safetensors"
    )
    state = read_state_dict(tmp_path / "x.safetensors")
    assert (state["a"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert find_weights(tmp_path) == [tmp_path / "model.safetensors"]


def test_shards_are_read_together(tmp_path: Path) -> None:
    model = Tied()
    state = state_of(model)
    del state["second.weight"]
    keys = sorted(state)
    save_file({key: state[key] for key in keys[:2]}, tmp_path / "a.safetensors")
    save_file({key: state[key] for key in keys[2:]}, tmp_path / "b.safetensors")
    index = {"weight_map": {key: "a.safetensors" if key in keys[:2] else "b.safetensors" for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in load_folder(model, tmp_path).files] == ["a.safetensors", "b.safetensors"]
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks b.safetensors, named by model.safetensors.index.json"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        [3],
        [None],
        [True],
        [["a"]],
        ["../b.safetensors"],
        ["/etc/passwd"],
        ["a/b"],
        ["a\0b"],
        ["x" * 256],
        [""],
        ["."],
        [],
    ],
)
def test_an_index_that_names_no_files_of_its_folder_is_refused(names: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a.safetensors", "../b.safetensors"):
        save_file({"a": torch.ones(1)}, folder / name)
    index = {"weight_map": {str(number): name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is not an index of weight files"):
        find_weights(folder)


def test_checkpoint_with_its_state_dict_inside(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "weights.ckpt")
    assert read_state_dict(tmp_path / "weights.ckpt", nested="state_dict")["a"].tolist() == [1.0]
    with pytest.raises(ModelError, match=r"state_dict, epoch is not a tensor"):
        read_state_dict(tmp_path / "weights.ckpt")


class Shell:
    """What must not be run when a file is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("was_run"),)  # type: ignore[return-value]


def test_pickle_with_code_raises_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Shell()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"is not a plain state dict: .* convert it to safetensors"):
        read_state_dict(tmp_path / "pytorch_model.bin")
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Shell()))
    with pytest.raises(ModelError, match=r"bare.bin"):
        read_state_dict(tmp_path / "bare.bin")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page"),
        (b"<html>", "is an HTML page"),
        (b"", "is empty"),
        (b"\x00\x01rubbish", "cannot be read|not a plain state dict"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_are_no_weights_raise(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_file_that_is_cut_short_raises(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("bin"):
        torch.save({"a": torch.ones(1000)}, path)
    else:
        save_file({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ModelError, match=r"download it again|not a plain state dict"):
        read_state_dict(path)


def test_folder_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no weights; expected one of model.safetensors, .* found config.json"):
        find_weights(tmp_path)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (build_random(lambda: nn.Linear(3, 3), seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_empty_build_draws_nothing() -> None:
    before = torch.get_rng_state()
    build_empty(lambda: nn.Linear(3, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_folder_and_odd_names_raise() -> None:
    with pytest.raises(ModelError, match=r"there is no checkpoint folder no/such/folder"):
        resolve_checkpoint(Path("no/such/folder"))
    with pytest.raises(ModelError, match=r"pass a folder with config.json and weights, or a Hub id"):
        resolve_checkpoint("a/b/c")


def test_folder_on_disk_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve_checkpoint(str(tmp_path)) == tmp_path


def test_hub_without_network_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"'org/name' \(revision abc\) from the Hub: .* pass the folder of a copy"):
        resolve_checkpoint("org/name", revision="abc")


def deflated(path: Path) -> Path:
    """The same archive, its entries compressed."""
    other = path.with_name("deflated.bin")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return other


def overlapping(path: Path) -> Path:
    """The same archive, in whose directory every entry is the largest one."""
    other = path.with_name("overlapping.bin")
    with zipfile.ZipFile(other, "w") as target, zipfile.ZipFile(path) as source:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        largest = max(target.infolist(), key=lambda entry: entry.file_size)
        for entry in target.infolist():
            entry.header_offset, entry.file_size = largest.header_offset, largest.file_size
            entry.compress_size, entry.CRC = largest.compress_size, largest.CRC
        target._didModify = True  # the directory is written when the archive is closed
    return other


@pytest.mark.parametrize("make", [deflated, overlapping])
def test_an_archive_that_inflates_beyond_its_size_is_refused_before_memory_is_taken(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    torch.save({"a": torch.zeros(100_000), "b": torch.zeros(10)}, tmp_path / "weights.bin")
    assert set(read_state_dict(tmp_path / "weights.bin")) == {"a", "b"}
    bomb = make(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match=r"has \d+ bytes and inflates to \d+; expected entries that are stored"):
        read_state_dict(bomb)
    with pytest.raises(ModelError, match="inflates to"), open_tensors([bomb]):
        pass
    halves = [bomb.with_name("bomb.pt.part0"), bomb.with_name("bomb.pt.part1")]
    raw = bomb.read_bytes()
    halves[0].write_bytes(raw[: len(raw) // 2])
    halves[1].write_bytes(raw[len(raw) // 2 :])
    with pytest.raises(ModelError, match="inflates to"), open_tensors(halves):
        pass


@pytest.mark.parametrize(
    ("place", "value"), [(6, 0xFF), (46, 0xFF), (0, 0)], ids=["version", "name that is not UTF-8", "no directory"]
)
def test_an_archive_whose_directory_is_damaged_is_refused(place: int, value: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(3)}, path)
    raw = bytearray(path.read_bytes())
    entry = raw.find(b"PK\x01\x02")
    raw[entry + 9] |= 0x08  # names are UTF-8
    raw[entry + place] = value
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"cannot be read: .*; download it again"):
        read_state_dict(path)


def test_a_tensor_with_more_values_than_its_file_has_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(1, dtype=torch.float16).expand(10**6, 10**6)}, path)
    with pytest.raises(ModelError, match=r"has \d+ bytes and declares 1000000000000 values for a; expected"):
        read_state_dict(path)


def test_hub_gives_safetensors_and_pickles_only_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def record(name: str, *, revision: str | None, allow_patterns: list[str], **_: object) -> str:
        asked.append(tuple(pattern for pattern in allow_patterns if pattern not in SMALL_FILES))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", record)
    resolve_checkpoint("org/name", with_weights=False)
    assert asked == [()]
    resolve_checkpoint("org/name")
    assert asked[1:] == [("*.safetensors",), ("*.bin", "*.ckpt")]
    (tmp_path / "model.safetensors").touch()
    resolve_checkpoint("org/name")
    assert asked[3:] == [("*.safetensors",)]


def test_files_outside_the_hub_go_to_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path))
    spec = ModelSpec(
        key="old",
        embedder="toy:Toy",
        source="erda",
        checkpoint="https://example.org/old",
        width=2,
        files=(RemoteFile(name="config.json", url="https://example.org/old/config.json", n_bytes=2),),
    )
    held = tmp_path / "models" / "old" / "config.json"
    held.parent.mkdir(parents=True)
    held.write_text("{}")
    assert fetch_files(spec) == held.parent


def test_declaration_without_files_asks_for_a_folder() -> None:
    spec = ModelSpec(key="old", embedder="toy:Toy", source="zenodo", checkpoint="https://example.org/1", width=2)
    with pytest.raises(ModelError, match=r"model 'old' .* declares no files to download; .* checkpoint="):
        fetch_files(spec)


def test_read_json_rejects_what_is_not_an_object(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config.json"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"holds a list; expected a JSON object"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"is not valid JSON"):
        read_json(tmp_path / "config.json")


def test_checksum_depends_on_content_and_order(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_text("a")
    two.write_text("b")
    assert sha256_of([one, two]) != sha256_of([two, one])
    two.write_text("a")
    assert sha256_of([one]) == sha256_of([two])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_integers_are_not_taken_for_weights(dtype: torch.dtype) -> None:
    state = {"weight": torch.ones(2, 2, dtype=dtype), "bias": torch.zeros(2)}
    with pytest.raises(ModelError, match=r"holds integers where weights are expected: weight \(\w+\)"):
        load_weights(torch.nn.Linear(2, 2), state, source="x.bin")
