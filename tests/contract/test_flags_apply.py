"""Every flag of a command has an effect whenever it is given, or a declared condition under which it is refused."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from bend_hf.cli import COMMANDS, actions_of
from bend_hf.cli._main import main
from bend_hf.config import Condition, flags_of
from bend_hf.training.pretraining import config as pretraining
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.variants import config as variants
from bend_hf.variants.config import VariantRun

# Flags that have an effect whatever else is given. A new flag belongs here or into a condition.
ALWAYS = {
    "compare": {"predictions", "metric", "clusters", "level", "method", "others"},
    "push": {"kind", "dry_run"},
    "cache": {"action", "cache", "all", "dry_run", "to"},
    "pretrain": {
        *(
            "config",
            "model",
            "genome",
            "out",
            "set",
            "objective",
            "bed",
            "exclude",
            "held_out",
            "margin_bp",
            "window_bp",
        ),
        *("window_bp", "batch_windows", "accumulation_steps", "steps", "stop_after", "learning_rate", "schedule"),
        *(
            "warmup_steps",
            "weight_decay",
            "betas",
            "clip",
            "repeat_weight",
            "reverse_complement",
            "max_n_fraction",
            "seed",
        ),
        *("mixed_precision", "validate_every", "validation_windows", "save_every", "keep", "no_tables", "threads"),
        *("device", "compile"),
    },
    "variants": {
        "dry_run",
        *("file", "genome", "out", "ref_mismatch", "indels", "label_column", "consequence_column", "embedding_idx"),
        *("no_averages", "no_likelihood", "probe", "csv", "no_plot", "force", "seed", "protocol", "model", "device"),
        *("reverse_complement_average", "dry_run"),
    },
}
CONDITIONS: dict[str, tuple[Condition, ...]] = {
    **{key: COMMANDS.get(key).conditions for key in ("compare", "push", "cache")},
    "pretrain": pretraining._CONDITIONS,
    "variants": variants._CONDITIONS,
}
NEEDS = {"variants": VariantRun, "pretrain": PretrainConfig}

REFUSED = [
    ("compare a.parquet b.parquet --resamples 50", "--resamples is 50, but only --method bootstrap draws resamples"),
    ("compare a.parquet b.parquet --seed 3 --method delong", "--seed is 3, but only --method bootstrap"),
    ("compare a.parquet b.parquet --block-bp 5 --clusters item", "--block-bp is 5, but --clusters is neither auto nor"),
    ("push card mine --namespace me", "NAME is mine, but only datasets and metrics have names"),
    ("push metric --from x --namespace me", "--from is x, but metrics come with the package"),
    ("push metric --repo me/x", "--repo is me/x, but each dataset or metric has a repository of its own"),
    ("push report --create-pr --repo me/x", "--create-pr is given, but a pull request holds the scores of a card or"),
    ("push card --create-pr --public --repo me/x", "--public is given, but --create-pr changes no repository"),
    ("push results --model x --repo me/x", "--model is x, but only 'push results --create-pr' to the repository of"),
    ("push card --to me/x", "--to is me/x, but only results go to a shared store"),
    ("push results --to me/x --repo me/y", "--repo is me/y, but --to names the repository"),
    ("push results --to me/x --namespace me", "--namespace is me, but --to names the owner"),
    ("push card --dataset a=b/c@d --repo me/x", "--dataset is a=b/c@d, but only 'push results' looks for datasets"),
    ("push card --repo me/x --namespace you", "--namespace is you, but --repo names the owner"),
    ("cache prune --all mine", "WORD is mine, but --all removes everything; leave WORD out"),
    ("cache prune --all --older-than 3", "--older-than is 3.0, but --all removes everything"),
    ("cache prune --all --unfinished", "--unfinished is given, but --all removes everything"),
    ("cache prune --all --broken", "--broken is given, but --all removes everything"),
    ("pretrain {p} --model hyena --mask-rate 0.2", "--mask-rate is 0.2, but a causal model predicts every nucleotide"),
    (
        "pretrain {p} --model convnet --held-out chr1 --held-out-fraction 0",
        "--held-out-fraction is 0.0, but",
    ),
    ("pretrain {p} --model convnet --held-out chr1 --block-bp 9", "--block-bp is 9, but --held-out names the regions"),
    (
        "pretrain {p} --model convnet --schedule constant --min-learning-rate-share 0",
        "--min-learning-rate-share is 0.0, but --schedule is constant",
    ),
    (
        "variants v.vcf --genome g.fa --both-strands --no-likelihood",
        "--both-strands is given, but --no-likelihood skips",
    ),
    (
        "variants v.vcf --genome g.fa --whole-window --no-likelihood",
        "--whole-window is given, but --no-likelihood skips",
    ),
    ("variants v.vcf --genome g.fa --window-bp 8 --no-averages", "--window-bp is 8, but --no-averages skips distances"),
    ("train cpg_methylation --seed 5 --seeds 1 2", "--seed is 5, but --seeds, as a flag or in the file of --config"),
    ("run cpg_methylation --seed 5 --seeds 1 2", "--seed is 5, but --seeds, as a flag or in the file of --config"),
]


def flags_of_command(key: str) -> set[str]:
    """Names of all flags and words of a command."""
    parser = argparse.ArgumentParser()
    COMMANDS.get(key).add_flags(parser)
    return {action.dest for action in actions_of(parser)} - {"help"}


@pytest.mark.parametrize("key", CONDITIONS)
def test_every_flag_has_an_effect_always_or_under_a_declared_condition(key: str) -> None:
    conditional = {flag for condition in CONDITIONS[key] for flag in condition.flags}
    declared = {name for name, info in flags_of(NEEDS[key]).items() if info.needs} if key in NEEDS else set()
    assert flags_of_command(key) == conditional | declared | ALWAYS[key]
    assert not conditional & ALWAYS[key]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_flag_without_effect_is_refused_before_anything_is_read(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BEND_HF_NAMESPACE", raising=False)
    assert main(shlex.split(words.format(p="--genome g.fa --out o"))) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_condition_has_an_example() -> None:
    shown = " ".join(said for _, said in REFUSED)
    for key, conditions in CONDITIONS.items():
        for condition in conditions:
            assert any(condition.reason.startswith(said.partition(", but ")[2][:20]) for _, said in REFUSED), key
            for flag in condition.flags:
                word = {"names": "NAME" if key == "push" else "WORD", "folder": "--from"}.get(flag, flag)
                assert f"{word.replace('_', '-')} is" in shown, flag


def test_a_flag_of_the_line_that_the_file_leaves_without_effect_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text("seeds = [1, 2]\n")
    assert main(["train", "cpg_methylation", "--config", str(file), "--seed", "5", "--out", str(tmp_path / "out")]) == 2
    assert "--seed is 5, but --seeds, as a flag or in the file of --config, says which" in capsys.readouterr().err
