"""CpG methylation: in which of 7 cell lines the CpG at the middle is methylated.

>>> len(TASKS[0].label_names)
7
"""

from __future__ import annotations

from bend_hf.tasks._labels import MultiLabel
from bend_hf.tasks._spec import BEND, ENCODE, Head, NamedSplits, TaskSpec, TrainingSpec

N_LABELS = 7  # BEND conf/datadims/label_dims.yaml, cpg_methylation

TASKS = (
    TaskSpec(
        key="cpg_methylation",
        group="cpg_methylation",
        title="CpG methylation",
        description=(
            "Say in which of 7 human cell lines the CpG site at the middle of a 512-bp sequence is methylated."
        ),
        assembly="GRCh38",
        window_bp=512,
        # BEND's bed holds indices alone; what an index stands for is not published with it.
        label=MultiLabel(names=tuple(f"cell_line_{index:01d}" for index in range(N_LABELS))),
        stranded=True,  # BEND conf/embedding/embed.yaml, cpg_methylation.read_strand
        partition=NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3, pool_bp=512),  # BEND conf/supervised_tasks/cpg_methylation.yaml
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
