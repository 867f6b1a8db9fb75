"""The window sampler: what it draws, how evenly, and what it refuses."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError, GenomeError
from bend_hf.training.pretraining.nucleotides import Stream, random_words
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.windows import WindowSampler
from tests.bgzip import bgzip
from tests.tiny import write_genome

TEXT = b">chr1\nACGTACGTAC\nGTNNNNNNNN\nacgtacgtac\n>chr2\nGGGGGGGG\n"


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    (tmp_path / "tiny.fa").write_bytes(TEXT)
    return Genome(tmp_path / "tiny.fa")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    write_genome(path)
    return Genome(path)


def test_windows_are_drawn_evenly_over_all_admissible_starts(genome: Genome) -> None:
    sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=4, max_n_fraction=0.25, seed=5)
    assert (sampler.n_windows, sampler.n_left_out) == (10 + 8 + 5, 9)
    drawn = [sampler.batch(step, 230) for step in range(100)]
    at = np.concatenate([windows.contig_B * 100 + windows.starts_B for windows in drawn])
    places, counts = np.unique(at, return_counts=True)
    assert places.tolist() == [*range(10), *range(19, 27), *range(100, 105)]
    # 23,000 draws over 23 starts: 1,000 each with a standard deviation of 31, 5 of which hold in all but 1 in 10^5.
    assert np.abs(counts - 1000).max() < 5 * 31


def test_half_of_the_windows_are_flipped_with_the_flag_and_none_without(larger: Genome) -> None:
    regions = Regions.of_genome(larger)
    sampler = WindowSampler(larger, regions, window_bp=10, reverse_complement=True, seed=1)
    n_flipped = int(sampler.batch(0, 10_000).flipped_B.sum())
    assert abs(n_flipped - 5_000) < 5 * 50
    assert not WindowSampler(larger, regions, window_bp=10, seed=1).batch(0, 1000).flipped_B.any()


def test_steps_and_seeds_give_other_windows_and_the_same_step_the_same(larger: Genome) -> None:
    regions = Regions.of_genome(larger)
    first, again, other = (WindowSampler(larger, regions, window_bp=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.batch(7, 9).codes_BL, again.batch(7, 9).codes_BL)
    assert not np.array_equal(first.batch(7, 9).starts_B, first.batch(8, 9).starts_B)
    assert not np.array_equal(first.batch(7, 9).starts_B, other.batch(7, 9).starts_B)


def test_validation_lays_tiles_side_by_side_and_counts_those_rich_in_n(genome: Genome) -> None:
    sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=5, max_n_fraction=0.4)
    tiles = sampler.validation()
    assert (tiles.n_tiles, tiles.n_left_out) == (7, 2)
    assert tiles.windows.contig_B.tolist() == [0, 0, 0, 0, 1]
    assert tiles.windows.starts_B.tolist() == [0, 5, 20, 25, 0]
    assert tiles.windows.repeats_BL.all(axis=1).tolist() == [False, False, True, True, False]
    few = sampler.validation(2)
    assert (few.windows.starts_B.tolist(), few.n_tiles, few.n_left_out) == ([0, 20], 7, 2)


def test_a_rank_without_rows_gets_an_empty_batch(genome: Genome) -> None:
    sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=5)
    assert sampler.batch(0, 4, low=2, high=2).codes_BL.shape == (0, 5)


def test_rows_outside_the_batch_are_refused(genome: Genome) -> None:
    sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=5)
    with pytest.raises(ValueError, match="rows 2 to 5 of a batch of 4"):
        sampler.batch(0, 4, low=2, high=5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window_bp": 0}, "window_bp is 0"),
        ({"window_bp": 5, "max_n_fraction": 1.5}, "max_n_fraction is 1.5"),
        ({"window_bp": 5, "seed": -1}, "seed is -1"),
        ({"window_bp": 31}, "no window of 31 bp can be drawn: the longest of 2 regions has 30 bp"),
        ({"window_bp": 25, "max_n_fraction": 0.1}, "6 windows have more than 2 unknown nucleotides"),
    ],
)
def test_what_cannot_be_sampled_is_refused_with_the_reason(
    genome: Genome, options: dict[str, float], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        WindowSampler(genome, Regions.of_genome(genome), **options)  # type: ignore[arg-type]


def test_an_invalid_character_is_found_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "bad.fa").write_text(">chr1\nACGTACGTAC\nGTAC!GTACG\n")
    genome = Genome(tmp_path / "bad.fa")
    with pytest.raises(GenomeError, match="'!' at chr1:14 is not a nucleotide"):
        WindowSampler(genome, Regions.of_genome(genome), window_bp=4)


def test_windows_past_the_end_of_a_contig_are_refused(genome: Genome) -> None:
    with pytest.raises(GenomeError, match=r"1 windows reach past an end .* chr2:5-10"):
        genome.windows(np.array([0, 1]), np.array([25, 5]), 5)


def test_a_compressed_genome_reads_the_same(genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "tiny.fa.gz").write_bytes(bgzip(TEXT, 16))
    packed = Genome(tmp_path / "tiny.fa.gz")
    sampler = WindowSampler(packed, Regions.of_genome(packed), window_bp=5, seed=3)
    plain = WindowSampler(genome, Regions.of_genome(genome), window_bp=5, seed=3)
    assert np.array_equal(sampler.batch(1, 20).codes_BL, plain.batch(1, 20).codes_BL)


def test_no_start_is_held_one_by_one(tmp_path: Path) -> None:
    """An index of 4 million starts would take 32 MB."""
    (tmp_path / "long.fa").write_bytes(b">chr1\n" + b"ACGTTGCATG" * 400_000 + b"\n")
    genome = Genome(tmp_path / "long.fa")
    sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=100)
    assert sampler.n_windows == 4_000_000 - 99
    tracemalloc.start()
    again = WindowSampler(
        genome, Regions.of_genome(genome).minus(Regions.of_places(["chr1:100-200"], genome)), window_bp=100
    )
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert again.n_windows == 4_000_000 - 298
    assert kept < 1 << 20


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 in plain integers, after its definition (Salmon et al. 2011, section 3.3 and its constants)."""
    full = (1 << 64) - 1
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * counter[0], 1 << 64)
        high1, low1 = divmod(0xCA5A826395121157 * counter[2], 1 << 64)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B97F4A7C15) & full, (key[1] + 0xBB67AE8584CAA73B) & full]
    return counter


def test_the_bits_are_those_of_philox() -> None:
    # Random123's known answer for a counter and key of nothing but ones.
    ones = (1 << 64) - 1
    assert philox4x64([ones] * 4, [ones] * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]
    drawn = random_words(Stream.MASKS, seed=9, step=5, first_row=3, n_rows=2, n_words=6)
    blocks = [philox4x64([3 * 2 + block + 1, 0, 5, Stream.MASKS], [9, 0]) for block in range(4)]
    assert drawn.tolist() == [(blocks[0] + blocks[1])[:6], (blocks[2] + blocks[3])[:6]]
