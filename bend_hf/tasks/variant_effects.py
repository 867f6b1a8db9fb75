"""Variant effects, on gene expression and on disease: does an embedding change where one base changes?

>>> [task.config for task in TASKS]
['expression', 'disease']
"""

from __future__ import annotations

from bend_hf.tasks._labels import SequenceClass
from bend_hf.tasks._spec import BEND, Citation, TaskSpec, Unsplit, VariantSpec


def _variant_effects(
    config: str, *, description: str, label_names: tuple[str, str], sources: tuple[Citation, ...], license: str
) -> TaskSpec:
    """Declare one configuration; all of them are zero-shot and scored the same way."""
    return TaskSpec(
        key=f"variant_effects_{config}",
        group="variant_effects",
        config=config,
        title=f"Variant effects on {config}",
        description=f"{description}, by the distance between the embeddings of the two alleles. Nothing is trained.",
        assembly="GRCh38",
        window_bp=None,
        label=SequenceClass(names=label_names),
        stranded=False,  # BEND conf/embedding/embed.yaml, variant_effects.read_strand
        partition=Unsplit(),
        head=None,
        training=None,
        variant=VariantSpec(),
        metric="auroc",
        further_metrics=("auprc",),
        citations=(BEND, *sources),
        license=license,
    )


TASKS = (
    _variant_effects(
        "expression",
        description=(
            "Tell single-nucleotide variants that are associated with gene expression from background variants"
        ),
        label_names=("no_effect", "effect"),
        sources=(
            Citation(
                authors="Zhou, J., Troyanskaya, O. G.",
                title="Predicting effects of noncoding variants with deep learning-based sequence model",
                venue="Nature Methods 12",
                year=2015,
                doi="10.1038/nmeth.3547",
            ),
            Citation(
                authors="Leslie, R., O'Donnell, C. J., Johnson, A. D.",
                title=(
                    "GRASP: analysis of genotype-phenotype results from 1390 genome-wide association studies and "
                    "corresponding open access database"
                ),
                venue="Bioinformatics 30 (12)",
                year=2014,
                doi="10.1093/bioinformatics/btu273",
            ),
            Citation(
                authors="1000 Genomes Project Consortium",
                title="A global reference for human genetic variation",
                venue="Nature 526",
                year=2015,
                doi="10.1038/nature15393",
            ),
        ),
        license="GRASP and 1000 Genomes Project: free to use, with citation",
    ),
    _variant_effects(
        "disease",
        description="Tell pathogenic from benign single-nucleotide variants of ClinVar",
        label_names=("benign", "pathogenic"),
        sources=(
            Citation(
                authors="Landrum, M. J., et al.",
                title="ClinVar: improvements to accessing data",
                venue="Nucleic Acids Research 48 (D1)",
                year=2020,
                doi="10.1093/nar/gkz972",
            ),
        ),
        license="ClinVar: public domain",
    ),
)
