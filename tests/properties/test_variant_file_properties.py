"""One variant has one reading, however a file writes it, and no reading if any base of its REF is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.errors import InputError
from bend_hf.variants import ReadSettings, read_variants

LIKELIHOOD = ReadSettings(indels="likelihood")
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Spelling = tuple[int, str, str]


def apply(genome: str, spelling: Spelling) -> str:
    start, ref, alt = spelling
    return genome[:start] + alt + genome[start + len(ref) :]


def spellings(genome: str, haplotype: str) -> list[Spelling]:
    """All ways to write the change from one sequence to another, with at least one base in each allele."""
    found = []
    for start in range(len(genome)):
        if genome[:start] != haplotype[:start]:
            break
        for end in range(start + 1, len(genome) + 1):
            tail = len(genome) - end
            alt_end = len(haplotype) - tail
            if alt_end > start and genome[end:] == haplotype[alt_end:]:
                found.append((start, genome[start:end], haplotype[start:alt_end]))
    return found


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[Spelling]]:
    """A short genome, full of repeats, and all ways to write one change of it."""
    genome = draw(st.text("AC", min_size=4, max_size=14)) + draw(st.text("ACGT", min_size=1, max_size=6))
    start = draw(st.integers(0, len(genome) - 1))
    end = draw(st.integers(start, min(start + 4, len(genome) - 1)))
    text = draw(st.text("ACGT", min_size=0, max_size=4))
    haplotype = genome[:start] + text + genome[end:]
    if haplotype in ("", genome):
        haplotype = "G" + genome if genome[0] != "G" else "A" + genome
    return genome, spellings(genome, haplotype)


def write(folder: Path, genome: str, rows: list[Spelling], kind: str, *, lower: bool = False) -> tuple[Path, Path]:
    fasta, path = folder / "genome.fa", folder / f"variants.{kind}"
    fasta.write_text(f">chr1\n{genome}\n")
    lines = []
    for start, ref, alt in rows:
        alleles = (ref.lower(), alt.lower()) if lower else (ref, alt)
        if kind == "vcf":
            lines.append("\t".join(("chr1", str(start + 1), ".", *alleles, ".", ".", ".")))
        else:
            lines.append("\t".join(("chr1", str(start), str(start + len(ref)), *alleles)))
    header = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO" if kind == "vcf" else "chromosome\tstart\tend\tref\talt"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path, fasta


def read(path: Path, fasta: Path) -> list[tuple[int, str, str, str, int]]:
    found = read_variants(path, fasta, LIKELIHOOD)
    table = found.table(np.arange(len(found)))
    columns = (table[name].to_pylist() for name in ("start", "ref", "alt", "sequence", "variant_offset"))
    return list(zip(*columns, strict=True))


@given(changes(), st.sampled_from(["vcf", "bed"]), st.booleans())
@SETTINGS
def test_all_spellings_of_a_variant_are_read_alike(
    tmp_path: Path, change: tuple[str, list[Spelling]], kind: str, lower: bool
) -> None:
    genome, rows = change
    found = read(*write(tmp_path, genome, rows, kind, lower=lower))
    assert len(found) == len(rows)
    assert len(set(found)) == 1
    start, ref, alt, *_ = found[0]
    # An independent oracle: the shortest of all spellings, and the leftmost of these.
    shortest = min(len(a) + len(b) for _, a, b in rows)
    assert (start, ref, alt) == min(row for row in rows if len(row[1]) + len(row[2]) == shortest)
    assert apply(genome, (start, ref, alt)) == apply(genome, rows[0])


@given(changes(), st.sampled_from(["vcf", "bed"]), st.data())
@SETTINGS
def test_any_wrong_base_of_ref_is_found(
    tmp_path: Path, change: tuple[str, list[Spelling]], kind: str, data: st.DataObject
) -> None:
    genome, rows = change
    start, ref, alt = data.draw(st.sampled_from(rows))
    at = data.draw(st.integers(0, len(ref) - 1))
    wrong = "ACGT"[("ACGT".index(ref[at]) + data.draw(st.integers(1, 3))) % 4]
    changed = ref[:at] + wrong + ref[at + 1 :]
    if at < len(alt):  # in both alleles, so that trimming would hide it
        alt = alt[:at] + wrong + alt[at + 1 :]
    with pytest.raises(InputError, match="REF disagrees"):
        read(*write(tmp_path, genome, [(start, changed, alt)], kind))
