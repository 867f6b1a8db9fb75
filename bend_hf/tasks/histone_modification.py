"""Histone modification: which of 18 histone marks of K562 a sequence carries.

>>> len(TASKS[0].label_names)
18
"""

from __future__ import annotations

from bend_hf.tasks._labels import MultiLabel
from bend_hf.tasks._spec import BEND, ENCODE, Head, NamedSplits, TaskSpec, TrainingSpec

N_LABELS = 18  # BEND conf/datadims/label_dims.yaml, histone_modification

TASKS = (
    TaskSpec(
        key="histone_modification",
        group="histone_modification",
        title="Histone modification",
        description=("Say which of 18 histone marks are found on a 512-bp sequence in the cell line K562."),
        assembly="GRCh38",
        window_bp=512,
        # BEND's bed holds indices alone; what an index stands for is not published with it.
        label=MultiLabel(names=tuple(f"mark_{index:02d}" for index in range(N_LABELS))),
        stranded=True,  # BEND conf/embedding/embed.yaml, histone_modification.read_strand
        partition=NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3, pool_bp=512),  # BEND conf/supervised_tasks/histone_modification.yaml
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
