"""The dilated convolutional network that BEND trained as its baseline, here small enough for a CPU.

bend-hf pretrain --model convnet --set hidden_size=256 --set n_layers=30 --genome GRCh38.fa --out resnetlm
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
        key="convnet",
        objective="masked",
        network="bend_hf.embedders.networks.convnet:ConvNetForMaskedLM",
        configuration="bend_hf.embedders.networks.convnet:ConvNetConfig",
        head="cls",
        token_ids=NUCLEOTIDE_IDS,
        learning_rate=1e-3,
        # BEND's own has hidden_size 256 and 30 layers; kernel and dilations are its own.
        sizes={
            "hidden_size": 128,
            "n_layers": 8,
            "kernel_size": 9,
            "dilation_double_every": 1,
            "dilation_max": 32,
            "dilation_cycle": 6,
            "dilation_base": 2,
            "initializer_range": 0.02,
        },
        least={"hidden_size": VOCABULARY_SIZE},  # one-hot sequence is in the first channels
        fixed={"vocab_size": VOCABULARY_SIZE},
        opens_with="resnetlm",
        write_tokenizer=write_tokenizer_of_nucleotides,
    ),
)
