"""Context tables: against cases worked by hand, plain Python, and real data."""

from __future__ import annotations

import gzip
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining import nucleotides as letters
from bend_hf.training.pretraining.ngram_baseline import causal_table_perplexity, masked_table_perplexity, table_rows
from bend_hf.training.pretraining.splits import HoldOut, split
from bend_hf.types import Bytes
from tests.shared_data import CHR20, needs_shared


def codes(text: str) -> Bytes:
    return letters.CODE_OF[list(text.encode())]


def test_a_causal_table_worked_by_hand() -> None:
    # AACAAC holds AA twice, AC twice, CA once; with one half added, C after A has 2.5 of 6 and A after C 1.5 of 3.
    row = causal_table_perplexity([codes("AACAAC")], [codes("ACA")], order=1)
    assert row.perplexity == pytest.approx(1 / math.sqrt(2.5 / 6 * 1.5 / 3))
    assert (row.name, row.order, row.n_positions) == ("1 letter before", 1, 2)


def test_a_masked_table_worked_by_hand() -> None:
    # AACAAC holds between A and C twice A, between A and A once C: A in A.C has 2.5 of 4, T in A.A 0.5 of 3.
    row = masked_table_perplexity([codes("AACAAC")], [codes("AAC"), codes("ATA")], k=1)
    assert row.perplexity == pytest.approx(1 / math.sqrt(2.5 / 4 * 0.5 / 3))
    assert (row.name, row.n_positions) == ("1 letter on each side", 2)


def test_order_zero_counts_single_nucleotides() -> None:
    row = causal_table_perplexity([codes("AAAC")], [codes("AG")], order=0)
    assert row.perplexity == pytest.approx(1 / math.sqrt(3.5 / 6 * 0.5 / 6))


def test_an_unknown_nucleotide_is_neither_scored_nor_context_and_no_context_crosses_stretches() -> None:
    row = masked_table_perplexity([codes("ACGT")], [codes("ACNGTTA"), codes("ac")], k=1)
    assert row.n_positions == 2
    whole = causal_table_perplexity([codes("ACGTACGT")], [codes("GTAC")], order=2)
    parts = causal_table_perplexity([codes("ACGTNACGT")], [codes("GTAC")], order=2)
    assert whole.perplexity < parts.perplexity


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (6, 0), (1, 1), (2, 2), (3, 3)])
def test_tables_are_what_counting_one_by_one_gives(left: int, right: int) -> None:
    rng = np.random.default_rng(left + right)
    train = ["".join(rng.choice(list("ACGTN"), n, p=[0.3, 0.2, 0.2, 0.29, 0.01])) for n in (3000, 5, 1)]
    held = ["".join(rng.choice(list("ACGTN"), n, p=[0.25, 0.25, 0.2, 0.2, 0.1])) for n in (500, 1)]

    def seen(stretches: list[str]) -> Counter[tuple[str, str, str]]:
        return Counter(
            (text[at - left : at], text[at], text[at + 1 : at + 1 + right])
            for text in stretches
            for at in range(left, len(text) - right)
            if "N" not in text[at - left : at + 1 + right]
        )

    counts, scored = seen(train), seen(held)
    nats = 0.0
    for (before, letter, behind), n in scored.items():
        total = sum(counts[before, other, behind] + 0.5 for other in "ACGT")
        nats -= n * math.log((counts[before, letter, behind] + 0.5) / total)
    stretches = [codes(text) for text in train], [codes(text) for text in held]
    row = masked_table_perplexity(*stretches, k=left) if right else causal_table_perplexity(*stretches, order=left)
    assert row.n_positions == scored.total()
    assert row.perplexity == pytest.approx(math.exp(nats / scored.total()))


def test_the_rows_of_a_split_do_not_depend_on_how_the_genome_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "genome.fa").write_text(">chr1\n" + "".join(rng.choice(list("ACGTNacgt"), 5000)) + "\n")
    genome = Genome(tmp_path / "genome.fa")
    parts = split(genome, HoldOut(regions=["chr1:1000-1500", "chr1:3000-3100"]), exclude=["chr1:4000-4003"])
    text = genome.fetch(["chr1"], [0], [5000]).one(0)
    train = [codes(text[low:high]) for low, high in ((0, 1000), (1500, 3000), (3100, 4000), (4003, 5000))]
    held = [codes(text[1000:1500]), codes(text[3000:3100])]
    monkeypatch.setattr(letters, "_CHUNK_BP", 371)
    assert table_rows(parts, genome, "causal") == [
        causal_table_perplexity(train, held, order=order) for order in (0, 3, 6, 9)
    ]
    assert table_rows(parts, genome, "masked") == [masked_table_perplexity(train, held, k=k) for k in range(1, 6)]


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ConfigError, match="would count 15-mers; expected 1 to 13"):
        masked_table_perplexity([], [], k=7)
    with pytest.raises(ConfigError, match="no held-out nucleotide has 2 letters before"):
        causal_table_perplexity([codes("ACGT")], [codes("AC"), codes("ANCGN")], order=2)


@needs_shared
def test_the_tables_of_chromosome_20(tmp_path: Path) -> None:
    """Counted on all but chr20:50-52 Mb and scored there: figures found independently, to the third decimal."""
    with gzip.open(CHR20 / "genome.fa.gz") as packed, (tmp_path / "genome.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 22)
    genome = Genome(tmp_path / "genome.fa")
    rows = table_rows(split(genome, HoldOut(regions=["chr20:50000000-52000000"])), genome, "masked")
    assert [round(row.perplexity, 3) for row in rows] == [3.704, 3.632, 3.516, 3.350, 3.285]
    assert [row.n_positions for row in rows] == [2_000_000 - 2 * k for k in range(1, 6)]
