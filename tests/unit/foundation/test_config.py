"""Flags map one to one to the configuration, and bad values are refused."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bend_hf.config import DataConfig, RunConfig, add_flags, kinds_of, read_toml
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import ConfigError
from bend_hf.runs.bench import BenchConfig
from bend_hf.runs.embed import EmbedConfig
from bend_hf.variants.config import VariantRun
from tests.command_line import parse_run


def parse(*argv: str) -> RunConfig:
    return parse_run(argv)


def test_every_field_has_its_flag() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, RunConfig)
    flags = {action.dest for action in parser._actions}
    assert {item.name for item in fields(RunConfig)} <= flags


def test_flags_become_fields_of_their_type() -> None:
    config = parse("--task", "a", "b", "--epochs", "3", "--learning-rate", "0.1", "--out", "x", "--fold", "1", "2")
    assert config.task == ("a", "b")
    assert config.epochs == 3
    assert config.learning_rate == 0.1
    assert config.out == Path("x")
    assert config.fold == (1, 2)
    assert config.protocol == "bend-2024"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--epochs", "0"), "--epochs is 0; it must be above 0"),
        (("--learning-rate", "-1"), "--learning-rate"),
        (("--weight-decay", "-1"), "must not be negative"),
        (("--seed", "-1"), "--seed is -1"),
        (("--batch-tokens", "0"), "--batch-tokens is 0; it must be 1 or more"),
        (("--fold", "0"), "counted from 1"),
    ],
)
def test_numbers_out_of_range_are_refused(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse("--task", "a", *argv)


def test_unknown_protocols_and_flags_end_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("--task", "a", "--protocol", "bend-3")
    assert "bend-2024" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        parse("--task", "a", "--epoch", "3")  # no abbreviations: --epoch is not --epochs


def test_data_flags_are_a_part_of_run_flags() -> None:
    assert {f.name for f in fields(DataConfig)} < {f.name for f in fields(RunConfig)}


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("-1", -1), ("28.mlp", "28.mlp"), ("blocks.26", "blocks.26")])
def test_a_layer_is_a_number_or_a_name(text: str, value: int | str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, RunConfig)
    assert parser.parse_args([f"--layer={text}"]).layer == value
    assert RunConfig(task="gene_finding", layer=text).layer == value
    toml = tmp_path / "run.toml"
    toml.write_text(f"layer = {value!r}\n")
    assert read_toml(toml, kinds_of(RunConfig))["layer"] == value


def test_every_command_that_opens_a_model_passes_on_its_device_and_its_batches() -> None:
    flags: dict[str, Any] = {"model": "bend-mini", "device": "cpu", "batch_tokens": 96, "random_init": True}
    configs = (
        RunConfig(task=("cpg_methylation",), **flags),
        EmbedConfig(task=("cpg_methylation",), **flags),
        BenchConfig(**flags),
        VariantRun(genome=Path("g.fa"), **flags),
    )
    for config in configs:
        embedder = open_model(config)
        assert embedder.runner().device.type == "cpu"
        assert embedder.runner().default_tokens == 96
