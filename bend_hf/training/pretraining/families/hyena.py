"""HyenaDNA: gated long convolutions that look back only; its tokenizer is part of the embedder.

bend-hf pretrain --model hyena --window-bp 1024 --genome GRCh38.fa --out hyenadna-tiny
"""

from __future__ import annotations

from bend_hf.embedders.hyenadna import NUCLEOTIDES
from bend_hf.training.pretraining.families._family import Family

_MASK = 3  # its tokenizer's; see bend_hf.embedders.hyenadna

FAMILIES = (
    Family(
        key="hyena",
        objective="causal",
        network="bend_hf.embedders.networks.hyenadna:HyenaDNAForCausalLM",
        configuration="bend_hf.embedders.networks.hyenadna:HyenaDNAConfig",
        head="lm_head",
        token_ids=(7, 8, 9, 10, 11, _MASK),
        learning_rate=6e-4,  # HyenaDNA (arXiv:2306.15794), appendix A.1
        # config.json of LongSafari/hyenadna-tiny-1k-seqlen-hf
        sizes={
            "d_model": 128,
            "n_layer": 2,
            "d_inner": 512,
            "emb_dim": 5,
            "filter_order": 64,
            "short_filter_order": 3,
            "num_inner_mlps": 2,
            "activation_freq": 10.0,
            "initializer_range": 0.02,
        },
        fixed={"vocab_size": 12},
        window_sizes={"max_seq_len": 2},  # as the published ones: 1,026 for 1,024 nucleotides
        competing=tuple(NUCLEOTIDES),
        opens_with="hyenadna-tiny-1k-hf",
    ),
)
