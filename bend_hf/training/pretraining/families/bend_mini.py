"""The two-scale model of k-mers that bend-mini is: much learned for little arithmetic.

bend-hf pretrain --model twoscale --genome GRCh38.fa --out mini
"""

from __future__ import annotations

from bend_hf.training.pretraining.families._family import LETTER_IDS, VOCABULARY_SIZE, Family, write_letters

FAMILIES = (
    Family(
        key="twoscale",
        objective="masked",
        network="bend_hf.embedders.networks.bend_mini:BendMiniForMaskedLM",
        configuration="bend_hf.embedders.networks.bend_mini:BendMiniConfig",
        head="cls",
        scores_at="scores_at",
        learned_at="learned_at",
        finish="whiten",
        token_ids=LETTER_IDS,
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
        write_tokenizer=write_letters,
    ),
)
