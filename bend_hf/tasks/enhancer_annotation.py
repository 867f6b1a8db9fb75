"""Enhancer annotation: which 128-bp bins around a gene's start are enhancers of that gene.

>>> TASKS[0].partition
Folds(n=10)
"""

from __future__ import annotations

from bend_hf.tasks._labels import BinClasses
from bend_hf.tasks._spec import BEND, Citation, Folds, Head, TaskSpec, TrainingSpec

TASKS = (
    TaskSpec(
        key="enhancer_annotation",
        group="enhancer_annotation",
        title="Enhancer annotation",
        description=(
            "Find the 128-bp bins, in 100,096 bp around a gene's transcription start site, that are enhancers "
            "of the gene by CRISPR interference. Ten folds."
        ),
        assembly="GRCh38",
        window_bp=100_096,  # 782 bins of 128 bp
        label=BinClasses(names=("not_enhancer", "enhancer"), bin_bp=128),
        stranded=False,  # BEND conf/embedding/embed.yaml, enhancer_annotation.read_strand
        partition=Folds(n=10),  # BEND conf/supervised_tasks/enhancer_annotation.yaml, data.cross_validation
        head=Head("cnn", hidden=2, kernel=3, pool_bp=128),  # same file, model
        training=TrainingSpec(
            loss="bce",
            batch_size=8,  # same file, data.batch_size
            learning_rate=0.001,  # same file, optimizer.lr
            positive_weight=82.86,  # same file, params.class_weights
        ),
        metric="auprc",
        further_metrics=("auroc",),
        citations=(
            BEND,
            Citation(
                authors="Fulco, C. P., et al.",
                title=(
                    "Activity-by-contact model of enhancer-promoter regulation from thousands of CRISPR perturbations"
                ),
                venue="Nature Genetics 51",
                year=2019,
                doi="10.1038/s41588-019-0538-0",
            ),
            Citation(
                authors="Gasperini, M., et al.",
                title="A genome-wide framework for mapping gene regulation via cellular genetic screens",
                venue="Cell 176",
                year=2019,
                doi="10.1016/j.cell.2018.11.029",
            ),
            Citation(
                authors="Avsec, Z., et al.",
                title=("Effective gene expression prediction from sequence by integrating long-range interactions"),
                venue="Nature Methods 18",
                year=2021,
                doi="10.1038/s41592-021-01252-x",
            ),
        ),
        license="as stated in the supplements of the cited articles",
    ),
)
