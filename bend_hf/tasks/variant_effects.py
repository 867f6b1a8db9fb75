"""Variant effects, on gene expression and on disease: does an embedding move where one base changes?

>>> [task.config for task in TASKS]
['expression', 'disease']
"""

from __future__ import annotations

from bend_hf.tasks._labels import SequenceClass
from bend_hf.tasks._spec import BEND, Citation, TaskSpec, Unsplit, VariantSpec

GROUP = "variant_effects"

TASKS = (
    TaskSpec(
        key="variant_effects_expression",
        group=GROUP,
        config="expression",
        title="Variant effects on expression",
        description=(
            "Tell single-nucleotide variants that are associated with gene expression from background "
            "variants, by the distance between the embeddings of the two alleles. Nothing is trained."
        ),
        assembly="GRCh38",
        window_bp=None,
        label=SequenceClass(names=("no_effect", "effect")),
        stranded=False,  # BEND conf/embedding/embed.yaml, variant_effects.read_strand
        partition=Unsplit(),
        head=None,
        training=None,
        variant=VariantSpec(),
        metric="auroc",
        further_metrics=("auprc",),
        citations=(
            BEND,
            Citation(
                authors="Zhou, J., Troyanskaya, O. G.",
                title="Predicting effects of noncoding variants with deep learning-based sequence model",
                venue="Nature Methods 12",
                year=2015,
                doi="10.1038/nmeth.3547",
            ),
        ),
        license="GRASP and 1000 Genomes Project: free to use, with citation",
    ),
    TaskSpec(
        key="variant_effects_disease",
        group=GROUP,
        config="disease",
        title="Variant effects on disease",
        description=(
            "Tell pathogenic from benign single-nucleotide variants of ClinVar, by the distance between the "
            "embeddings of the two alleles. Nothing is trained."
        ),
        assembly="GRCh38",
        window_bp=None,
        label=SequenceClass(names=("benign", "pathogenic")),
        stranded=False,  # BEND conf/embedding/embed.yaml, variant_effects.read_strand
        partition=Unsplit(),
        head=None,
        training=None,
        variant=VariantSpec(),
        metric="auroc",
        further_metrics=("auprc",),
        citations=(
            BEND,
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
