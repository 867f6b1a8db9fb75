"""Make the bundled sample: real human sequence, with labels derived from sequence and annotation.

For maintainers; the package contains the result, ``bend_hf/sample``.

    python dataset_scripts/make_sample.py --out bend_hf/sample
    python dataset_scripts/make_sample.py --fasta 20.fa.gz --genes hg19_genes.txt.gz --out bend_hf/sample

Without ``--fasta`` and ``--genes`` the two packages that hold them are downloaded with apt-get and pip.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from sample_card import write_card
from sample_files import CHECKSUMS, write_bgzip_fasta, write_checksums
from sample_region import REGIONS, Region, cut_region
from sample_rules import CHROMATIN_RULES, CPG_RULES, HISTONE_RULES, WINDOW_BP
from sample_sources import SampleError, fetch_fasta, fetch_genes, read_sequence, read_transcripts
from sample_tables import DISEASE, EXPRESSION, SEED, make_enhancers, make_gene_finding, make_variants, make_windows
from sample_windows import cpg_windows, tile_windows


def main() -> None:
    """Read the sources, make the sample, and replace an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier sample is replaced")
    parser.add_argument("--fasta", type=Path, help="chromosome 20 of GRCh37: FASTA or the Debian package vt-examples")
    parser.add_argument("--genes", type=Path, help="RefSeq genes of GRCh37: the table or the wheel of figeno")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / CHECKSUMS).is_file():
        raise SystemExit(f"{options.out} contains files that are not a sample; pass an empty or a new folder as --out")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            chromosome = read_sequence(options.fasta or fetch_fasta(Path(scratch)))
            transcripts = read_transcripts(options.genes or fetch_genes(Path(scratch)))
            regions = [cut_region(span, chromosome, transcripts) for span in REGIONS]
        except SampleError as error:
            raise SystemExit(str(error)) from error
        made = Path(scratch) / "sample"
        make(regions, made)
        if options.out.exists():
            shutil.rmtree(options.out)
        shutil.copytree(made, options.out)
    for path in sorted(p for p in options.out.rglob("*") if p.is_file()):
        print(f"{path.stat().st_size:>9,}  {path.relative_to(options.out)}")


def make(regions: list[Region], out: Path) -> None:
    """Write the whole sample into a new folder."""
    (out / "genomes").mkdir(parents=True)
    write_bgzip_fasta(out / "genomes" / "sample.fa.gz", {r.span.name: r.bases for r in regions})
    genes, borders = make_gene_finding(regions, out)
    places = list(zip(regions, borders, strict=True))
    tasks = [genes, make_enhancers(regions, borders, out)]

    rng = np.random.default_rng([SEED, 1])
    found = [tile_windows(r, b, CHROMATIN_RULES, offset_bp=0, stranded=False, rng=rng) for r, b in places]
    tasks.append(make_windows("chromatin_accessibility", places, CHROMATIN_RULES, found, rng, out))

    rng = np.random.default_rng([SEED, 2])
    half_bp = WINDOW_BP // 2
    found = [tile_windows(r, b, HISTONE_RULES, offset_bp=half_bp, stranded=True, rng=rng) for r, b in places]
    tasks.append(make_windows("histone_modification", places, HISTONE_RULES, found, rng, out))

    rng = np.random.default_rng([SEED, 3])
    found = [cpg_windows(r, b, rng) for r, b in places]
    tasks.append(make_windows("cpg_methylation", places, CPG_RULES, found, rng, out))

    tasks += [make_variants(recipe, regions, out) for recipe in (EXPRESSION, DISEASE)]
    write_card(out / "README.md", regions, borders, tasks)
    write_checksums(out)


if __name__ == "__main__":
    main()
