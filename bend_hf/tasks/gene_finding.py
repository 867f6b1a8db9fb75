"""Gene finding: for each nucleotide, which part of a gene on which strand it belongs to.

>>> TASKS[0].label_names[8]
'non_coding'
"""

from __future__ import annotations

from bend_hf.tasks._labels import NucleotideClasses
from bend_hf.tasks._spec import BEND, Citation, Head, NamedSplits, TaskSpec, TrainingSpec

# Order of the classes: labels of BEND's gene_finding.hdf5 (0 to 3 plus strand, 4 to 7 minus strand, 8 rest).
CLASSES = ("cds+", "donor+", "intron+", "acceptor+", "cds-", "donor-", "intron-", "acceptor-", "non_coding")

TASKS = (
    TaskSpec(
        key="gene_finding",
        group="gene_finding",
        title="Gene finding",
        description=(
            "Label each nucleotide of a gene and its flanks as coding sequence, splice donor, intron, splice "
            "acceptor (each on either strand) or non-coding."
        ),
        assembly="GRCh38",
        window_bp=None,  # 1,433 to 14,000 bp
        label=NucleotideClasses(names=CLASSES),
        stranded=False,  # BEND conf/embedding/embed.yaml, gene_finding.read_strand
        partition=NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3),  # BEND conf/supervised_tasks/gene_finding.yaml, model
        training=TrainingSpec(
            loss="cross_entropy",
            batch_size=64,  # same file, data.batch_size
            learning_rate=0.003,  # same file, optimizer.lr
        ),
        metric="mcc",
        further_metrics=("gene_structure",),  # whether genes are found, which MCC of nucleotides does not say
        citations=(
            BEND,
            Citation(
                authors="Frankish, A., et al.",
                title="GENCODE 2021",
                venue="Nucleic Acids Research 49 (D1)",
                year=2021,
                doi="10.1093/nar/gkaa1087",
            ),
        ),
        license="GENCODE: open access, no restriction on use",
    ),
)
