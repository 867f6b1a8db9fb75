"""AWD-LSTM, BEND's recurrent baseline, without dropout.

bend-hf pretrain --model awdlstm --genome GRCh38.fa --out awdlstm
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
        key="awdlstm",
        objective="causal",
        network="bend_hf.embedders.networks.awdlstm:AwdLstmForCausalLM",
        configuration="bend_hf.embedders.networks.awdlstm:AwdLstmConfig",
        head="decoder",
        token_ids=NUCLEOTIDE_IDS,
        learning_rate=2e-3,
        # input_size and initializer_range: BEND bend/models/awd_lstm.py; the other two are small for a CPU.
        sizes={"input_size": 64, "hidden_size": 192, "num_hidden_layers": 3, "initializer_range": 0.02},
        fixed={"vocab_size": VOCABULARY_SIZE},
        opens_with="awdlstm",
        in_bfloat16=False,  # each step would add its rounding to the state
        write_tokenizer=write_tokenizer_of_nucleotides,
    ),
)
