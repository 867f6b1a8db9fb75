"""Chromatin accessibility: in which of 125 cell types a sequence is open.

>>> len(TASKS[0].label_names)
125
"""

from __future__ import annotations

from bend_hf.tasks._labels import MultiLabel
from bend_hf.tasks._spec import BEND, ENCODE, Head, NamedSplits, TaskSpec, TrainingSpec

N_LABELS = 125  # BEND conf/datadims/label_dims.yaml, chromatin_accessibility

TASKS = (
    TaskSpec(
        key="chromatin_accessibility",
        group="chromatin_accessibility",
        title="Chromatin accessibility",
        description=("Say in which of 125 cell types the chromatin of a 512-bp sequence is accessible to DNase I."),
        assembly="GRCh37",  # BEND conf/embedding/embed.yaml: genomes/GRCh37.no-chr.fa
        window_bp=512,
        # BEND's bed holds indices alone; what an index stands for is not published with it.
        label=MultiLabel(names=tuple(f"cell_type_{index:03d}" for index in range(N_LABELS))),
        stranded=True,  # BEND conf/embedding/embed.yaml, chromatin_accessibility.read_strand
        partition=NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3, pool_bp=512),  # BEND conf/supervised_tasks/chromatin_accessibility.yaml
        training=TrainingSpec(
            loss="bce",
            batch_size=256,  # same file, data.batch_size
            learning_rate=0.003,  # same file, optimizer.lr
        ),
        metric="auroc",
        further_metrics=("auprc",),
        citations=(BEND, ENCODE),
        license="ENCODE: free to use without restriction, with citation",
    ),
)
