"""BERT over single nucleotides, as transformers has it; transformers can load the result without this package.

bend-hf pretrain --model bert --set num_hidden_layers=6 --genome GRCh38.fa --out nucleotide-bert
"""

from __future__ import annotations

from bend_hf.training.pretraining.families._family import (
    NUCLEOTIDE_IDS,
    VOCABULARY_SIZE,
    Family,
    write_window_tokenizer,
)

FAMILIES = (
    Family(
        key="bert",
        objective="masked",
        network="transformers:BertForMaskedLM",
        configuration="transformers:BertConfig",
        head="cls",
        token_ids=NUCLEOTIDE_IDS,
        learning_rate=5e-4,
        # Small for a CPU; without dropout, as a genome is read about once.
        sizes={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.02,
        },
        fixed={"vocab_size": VOCABULARY_SIZE, "type_vocab_size": 1, "pad_token_id": 0},
        window_sizes={"max_position_embeddings": 0},
        write_tokenizer=write_window_tokenizer,
    ),
)
