"""Writes the tables and labels of each task of the bundled sample.

For ``make_sample.py``, which gives each task its own stream of chance, so that a change of one task leaves the
others as they are.

>>> sum(kind.n_pairs for kind in DISEASE_KINDS)
400
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from sample_card import TaskSummary
from sample_files import Column, label_lists, write_bed, write_names, write_ragged, write_rectangular
from sample_genes import CLASS_TEXTS, CLASSES, gene_windows
from sample_region import SPLIT_OF_BLOCK, Region, block_borders, block_of
from sample_rules import WINDOW_BP, Rule
from sample_sources import Ints, SampleError
from sample_variants import (
    DISEASE_KINDS,
    EXPRESSION_KINDS,
    LETTERS,
    PairKind,
    Pairs,
    disease_pairs,
    draw_pairs,
    expression_pairs,
)
from sample_windows import ENHANCER_NAMES, ENHANCER_TEXT, ENHANCER_WINDOW_BP, Windows, draw, enhancer_windows

SEED: Final = 20
N_WINDOWS: Final = 600  # rows of each task of 512-bp windows: bend-mini embeds them in seconds on two cores


def make_gene_finding(regions: list[Region], out: Path) -> tuple[TaskSummary, list[Ints]]:
    """Write the genes; their rows decide where the blocks end."""
    rng = np.random.default_rng([SEED, 0])
    found = [gene_windows(region, rng) for region in regions]
    spans = [np.array([[g.start_bp, g.end_bp] for g in genes]) for genes in found]
    borders = [block_borders(region, span) for region, span in zip(regions, spans, strict=True)]
    rows = [
        (region.span.name, gene.start_bp, gene.end_bp, gene.transcript.accession, gene.transcript.gene, split)
        for region, genes, span, border in zip(regions, found, spans, borders, strict=True)
        for gene, split in sorted(
            zip(genes, splits(region, span[:, 0], span[:, 1], border), strict=True),
            key=lambda pair: pair[0].start_bp,
        )
    ]
    labels = [gene.labels for genes in found for gene in sorted(genes, key=lambda gene: gene.start_bp)]
    bed = out / "gene_finding" / "gene_finding.bed"
    names = ("chromosome", "start", "end", "transcript_id", "gene", "split")
    columns: dict[str, Column] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    write_bed(bed, columns)
    write_ragged(bed.with_suffix(".hdf5"), labels)
    write_names(bed.with_suffix(".labels.txt"), CLASSES)
    counts = np.bincount(np.concatenate(labels), minlength=len(CLASSES))
    return TaskSummary.of(
        "gene_finding", [row[-1] for row in rows], CLASSES, counts, counts.sum(), CLASS_TEXTS
    ), borders


def splits(region: Region, starts: Ints, ends: Ints, borders: Ints) -> list[str]:
    """Return the split of each row, by the block that it is in."""
    blocks = block_of(starts, ends, borders)
    if (blocks < 0).any():
        raise SampleError(f"a row of {region.span.name} crosses the border of a block; move the borders")
    return [SPLIT_OF_BLOCK[block + region.span.first_block] for block in blocks]


def make_windows(
    task: str,
    places: list[tuple[Region, Ints]],
    rules: tuple[Rule, ...],
    found: list[Windows],
    rng: np.random.Generator,
    out: Path,
) -> TaskSummary:
    """Write a task of 512-bp windows, drawn from those found; with strands if some are on the minus strand."""
    region_of = np.repeat(np.arange(len(found)), [len(w.starts) for w in found])
    starts, strands, labels = (
        np.concatenate([getattr(w, part) for w in found]) for part in ("starts", "strands", "labels")
    )
    chosen = draw(labels, N_WINDOWS, rng)
    region_of, starts, strands, labels = region_of[chosen], starts[chosen], strands[chosen], labels[chosen]
    split = [
        name
        for n, (region, border) in enumerate(places)
        for name in splits(region, starts[region_of == n], starts[region_of == n] + WINDOW_BP, border)
    ]
    columns: dict[str, Column] = {
        "chromosome": [places[n][0].span.name for n in region_of],
        "start": starts,
        "end": starts + WINDOW_BP,
        **({"strand": strands} if any((w.strands == "-").any() for w in found) else {}),
        "label": label_lists(labels),
        "split": split,
    }
    bed = out / task / f"{task}.bed"
    names = [rule.name for rule in rules]
    write_bed(bed, columns)
    write_names(bed.with_suffix(".labels.txt"), names)
    return TaskSummary.of(task, split, names, labels.sum(axis=0), len(labels), [rule.text for rule in rules])


def make_enhancers(regions: list[Region], borders: list[Ints], out: Path) -> TaskSummary:
    """Write the long windows; the number of a block is the number of its subset."""
    found = [enhancer_windows(region, border) for region, border in zip(regions, borders, strict=True)]
    starts = np.concatenate([windows.starts for windows in found])
    labels = np.concatenate([windows.labels for windows in found])
    parts = [f"part{block}" for windows in found for block in windows.blocks]
    bed = out / "enhancer_annotation" / "enhancer_annotation.bed"
    columns: dict[str, Column] = {
        "chromosome": [r.span.name for r, w in zip(regions, found, strict=True) for _ in w.starts],
        "start": starts,
        "end": starts + ENHANCER_WINDOW_BP,
        "split": parts,
    }
    write_bed(bed, columns)
    write_rectangular(bed.with_suffix(".hdf5"), labels)
    write_names(bed.with_suffix(".labels.txt"), ENHANCER_NAMES)
    counts = np.bincount(labels.ravel(), minlength=2)
    return TaskSummary.of(
        "enhancer_annotation", parts, ENHANCER_NAMES, counts, labels.size, ["all others", ENHANCER_TEXT]
    )


@dataclass(frozen=True, kw_only=True)
class VariantRecipe:
    """How a task of variants is made.

    Attributes:
        task: Its key.
        find_pairs: Enumerates the pairs of each kind in a region.
        kinds: The kinds of pairs.
        names: Names of labels 0 and 1.
        seed: Seed of the draw, in addition to that of the sample.
    """

    task: str
    find_pairs: Callable[[Region], Pairs]
    kinds: tuple[PairKind, ...]
    names: tuple[str, str]
    seed: int


EXPRESSION: Final = VariantRecipe(
    task="variant_effects_expression",
    find_pairs=expression_pairs,
    kinds=EXPRESSION_KINDS,
    names=("silent", "splicing_translation_or_polyadenylation"),
    seed=4,
)
DISEASE: Final = VariantRecipe(
    task="variant_effects_disease",
    find_pairs=disease_pairs,
    kinds=DISEASE_KINDS,
    names=("silent", "stop_start_or_splice_site"),
    seed=5,
)


def make_variants(recipe: VariantRecipe, regions: list[Region], out: Path) -> TaskSummary:
    """Write a table of matched single-nucleotide changes, sorted by position."""
    rng = np.random.default_rng([SEED, recipe.seed])
    drawn = draw_pairs([recipe.find_pairs(region) for region in regions], recipe.kinds, rng)
    pairs = [(*row, kind) for kind in recipe.kinds for row in drawn[kind.effect].tolist()]
    rows = sorted(
        (region, place, alt, label, name, pair)
        for pair, (region, effect, silent, alt, kind) in enumerate(pairs)
        for label, place, name in ((1, effect, kind.effect), (0, silent, kind.silent))
    )
    columns: dict[str, Column] = {
        "chromosome": [regions[n].span.name for n, *_ in rows],
        "start": [place for _, place, *_ in rows],
        "end": [place + 1 for _, place, *_ in rows],
        "ref": [chr(regions[n].bases[place]) for n, place, *_ in rows],
        "alt": [LETTERS[alt] for _, _, alt, *_ in rows],
        "label": [label for _, _, _, label, *_ in rows],
        "full_label": [name for *_, name, _ in rows],
        "pair": [pair for *_, pair in rows],
    }
    bed = out / "variant_effects" / f"{recipe.task}.bed"
    write_bed(bed, columns)
    write_names(bed.with_suffix(".labels.txt"), recipe.names)
    texts = {kind.effect: kind.effect_text for kind in recipe.kinds}
    texts |= {kind.silent: kind.silent_text for kind in recipe.kinds}
    counts = Counter(name for *_, name, _ in rows)
    apart = np.array([abs(effect - silent) for _, effect, silent, *_ in pairs])
    summary = TaskSummary.of(
        recipe.task, None, list(texts), [counts[name] for name in texts], len(rows), list(texts.values())
    )
    return replace(summary, apart_bp=(int(np.median(apart)), int(apart.max())))
