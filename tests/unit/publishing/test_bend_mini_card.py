"""The card of bend-mini agrees with the recorded results."""

from __future__ import annotations

from examples.bend_mini.card import CARD, card, gain, lines, reach_bp, verdict


def test_the_card_is_what_its_script_writes() -> None:
    assert CARD.read_text(encoding="utf-8") == card()


def test_the_verdict_counts_only_differences_beyond_the_interval() -> None:
    pair = {"difference": 0.1, "low": 0.02, "high": 0.18, "p": 0.01}
    tasks = {
        "genes": {"probe": "cnn", "against_random_twin": pair},
        "marks": {"probe": "linear", "against_random_twin": {**pair, "low": -0.01}},
        "variants": {"probe": "zero_shot", "against_random_twin": {**pair, "low": -0.2, "high": -0.1}},
    }
    assert verdict([tasks]) == (
        "bend-mini is better than random weights in 1 of 3 comparisons (genes, cnn) and worse in 1 (variants, "
        "zero-shot), counting differences whose 95 % interval excludes 0."
    )
    assert gain(tasks["genes"]) == "+0.100 (+0.020 to +0.180)"
    assert gain({"against_evened_twin": None}, "against_evened_twin") == "-"  # the control was not run


def test_a_command_is_broken_before_each_flag() -> None:
    assert lines(["python", "-m", "x", "--set", "a=1", "b=2", "--seed", "0"]) == [
        "python -m x",
        "--set a=1 b=2",
        "--seed 0",
    ]


def test_the_reach_is_that_of_the_dilated_layers() -> None:
    assert reach_bp({"stride": 8, "body_layers": 2, "kmer": 5, "side_kmers": 2}) == 8 * 3 + 8
