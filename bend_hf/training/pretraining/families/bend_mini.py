"""bend-mini: k-mer embeddings at two scales, fast enough to train on a CPU.

bend-hf pretrain --model bend-mini --genome GRCh38.fa --out mini
"""

from __future__ import annotations

from bend_hf.training.pretraining.families._family import (
    NUCLEOTIDE_IDS,
    VOCABULARY_SIZE,
    Family,
    write_tokenizer_of_nucleotides,
)

FAMILIES = (
    Family(
        key="bend-mini",
        aliases=("twoscale",),  # its name in the first release
        objective="masked",
        network="bend_hf.embedders.networks.bend_mini:BendMiniForMaskedLM",
        configuration="bend_hf.embedders.networks.bend_mini:BendMiniConfig",
        head="cls",
        scores_at="scores_at",
        learned_at="learned_at",
        finish="whiten",
        token_ids=NUCLEOTIDE_IDS,
        learning_rate=6e-3,
        sizes={
            "kmer": 5,
            "table_width": 64,
            "side_kmers": 6,
            "stride": 8,
            "body_width": 104,
            "body_layers": 7,
            "detail_width": 48,
            "local_width": 384,
            "fine_width": 192,
            "fine_layers": 1,
            "around_word": 4,
            "around_places": 32,
            "around_weight": 2.0,
            "initializer_range": 0.01,
        },
        fixed={"vocab_size": VOCABULARY_SIZE},
        opens_with="bend-mini",
        write_tokenizer=write_tokenizer_of_nucleotides,
    ),
)
