"""What every head of the registry must hold, whoever declares it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bend_hf.errors import ConfigError
from bend_hf.tasks import TASKS, TaskSpec
from bend_hf.tasks._labels import BinClasses
from bend_hf.tasks._spec import Head
from bend_hf.training.checkpoints import Checkpoints, Saved, load_trained, trained_state
from bend_hf.training.heads import HEADS, HeadSpec, build_head, head_entry, head_of

N_OUTPUTS = 3
WINDOW_BP = 96
LABELS = {
    "a label per nucleotide": replace(TASKS.get("gene_finding"), key="nucleotides"),
    "a label per bin": replace(
        TASKS.get("enhancer_annotation"),
        key="bins",
        window_bp=WINDOW_BP,
        label=BinClasses(names=("no", "yes"), bin_bp=32),
        head=Head("cnn", hidden=2, pool_bp=32),
    ),
    "a label vector per sequence": replace(
        TASKS.get("cpg_methylation"), key="windows", window_bp=WINDOW_BP, head=Head("cnn", pool_bp=WINDOW_BP)
    ),
}
pytestmark = pytest.mark.parametrize("spec", list(HEADS), ids=lambda spec: spec.key)


def fitting(spec: HeadSpec) -> list[tuple[TaskSpec, Head]]:
    """The kinds of labels that a head can learn, and the head for each."""
    found = []
    for task in LABELS.values():
        with suppress(ConfigError):
            found.append((task, head_of(spec.key, task)))
    return found


def built(spec: HeadSpec, head: Head) -> nn.Module:
    torch.manual_seed(0)
    return build_head(head, width_of(spec), N_OUTPUTS).eval()


def width_of(spec: HeadSpec) -> int:
    return 5 if spec.needs_one_hot else 7


def inputs(spec: HeadSpec, n_bp: int) -> tuple[Tensor, Tensor]:
    """Two sequences with one row per nucleotide."""
    torch.manual_seed(1)
    rows = torch.randint(0, 4, (2, n_bp))
    x_BTD = nn.functional.one_hot(rows, 5).float() if spec.needs_one_hot else torch.randn(2, n_bp, width_of(spec))
    return x_BTD, torch.arange(n_bp).expand(2, -1).clone()


def n_windows(task: TaskSpec) -> int:
    if isinstance(task.label, BinClasses):
        return WINDOW_BP // task.label.bin_bp
    return WINDOW_BP if task.key == "nucleotides" else 1


def test_a_head_says_what_it_is(spec: HeadSpec) -> None:
    assert spec.text
    assert not spec.text.endswith(".")
    assert "width" not in spec.defaults
    assert "n_outputs" not in spec.defaults


def test_a_head_learns_some_labels_and_refuses_the_others(spec: HeadSpec) -> None:
    learned = [task.key for task, _ in fitting(spec)]
    assert learned
    for task in LABELS.values():
        if task.key not in learned:
            with pytest.raises(ConfigError, match=rf"'{spec.key}' .* {task.key}"):
                head_of(spec.key, task)


def test_logits_have_one_row_per_label_window(spec: HeadSpec) -> None:
    for task, head in fitting(spec):
        logits = built(spec, head)(*inputs(spec, WINDOW_BP))
        assert logits.shape == (2, n_windows(task), N_OUTPUTS)
        assert logits.isfinite().all()


def test_values_at_padding_change_nothing(spec: HeadSpec) -> None:
    for _, head in fitting(spec):
        x_BTD, token_of_BL = inputs(spec, WINDOW_BP)
        module = built(spec, head)
        expected = module(x_BTD, token_of_BL)
        padded = torch.cat([x_BTD, torch.full((2, 4, x_BTD.shape[-1]), 1e3)], dim=1)  # tokens of no nucleotide
        torch.testing.assert_close(module(padded, token_of_BL), expected, rtol=1e-5, atol=1e-6)


def test_a_padded_sequence_scores_as_it_does_alone(spec: HeadSpec) -> None:
    for task, head in fitting(spec):
        x_BTD, token_of_BL = inputs(spec, WINDOW_BP)
        module = built(spec, head).double()
        token_of_BL[1, 64:] = -1  # the second sequence has 64 nucleotides
        x_BTD[1, 64:] = 1e3
        short = (x_BTD[1:, :64].double(), token_of_BL[1:, :64])
        if task.key == "windows":  # all sequences have one length, so a shorter one is refused
            with pytest.raises(ConfigError):
                module(*short)
            continue
        together, alone = module(x_BTD.double(), token_of_BL), module(*short)
        torch.testing.assert_close(together[1, : alone.shape[1]], alone[0], rtol=1e-9, atol=1e-9)


def test_a_head_of_one_hot_sequence_refuses_embeddings(spec: HeadSpec) -> None:
    (_, head), *_ = fitting(spec)
    if spec.needs_one_hot:
        with pytest.raises(ConfigError, match="reads one-hot sequence of width 5, not embeddings of width 768"):
            build_head(head, 768, N_OUTPUTS)
    else:
        assert build_head(head, 768, N_OUTPUTS)


def test_an_unknown_setting_is_refused(spec: HeadSpec) -> None:
    with pytest.raises(ConfigError, match="has no setting 'no_such_setting'"):
        build_head(Head(spec.key, no_such_setting=1), width_of(spec), N_OUTPUTS)


def test_records_name_the_head_and_its_settings(spec: HeadSpec) -> None:
    for _, head in fitting(spec):
        entry = head_entry(head)
        assert entry is not None
        assert entry["kind"] == (spec.kind or spec.key)
        assert {name: entry[name] for name in head.settings} == head.settings
    kinds = [one.kind or one.key for one in HEADS]
    assert len(set(kinds)) == len(kinds)


def test_saved_weights_give_the_same_logits(spec: HeadSpec, tmp_path: Path) -> None:
    (_, head), *_ = fitting(spec)
    module, x = built(spec, head), inputs(spec, WINDOW_BP)
    Checkpoints(tmp_path).write(Saved(tensors={}, facts={}), best=trained_state(module), best_at=1)
    saved = Checkpoints(tmp_path).read()
    assert saved is not None
    torch.manual_seed(9)
    other = build_head(head, width_of(spec), N_OUTPUTS).eval()
    load_trained(other, saved.best)
    assert torch.equal(other(*x), module(*x))
