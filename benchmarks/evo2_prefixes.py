"""Time Evo 2's likelihood ratios of whole windows, where REF and ALT share what they begin with, and where they do not.

    python -m benchmarks.evo2_prefixes             # prints the ratios, writes benchmarks/results/evo2_prefixes.json

The model has random weights, one block of each kind and one more short convolution, at width 128. Windows hold 512
nucleotides on each side of the variant. Both ways take turns, and the best round of processor time counts. The ratio of
tokens is that of the tokens that the blocks compute.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bend_hf.embedders import load_embedder
from bend_hf.embedders.evo2 import Evo2Embedder
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods, VariantLikelihoods
from bend_hf.variants.alleles import Context, StoredVariants
from tests.fake_checkpoints import make_tiny

RESULT = Path(__file__).with_name("results") / "evo2_prefixes.json"
SIZES = {"hidden_size": 128, "num_attention_heads": 2, "inner_mlp_size": 256, "max_seqlen": 8192}
SIDE_BP = 512
N_SITES = 4
ROUNDS = 2


def model() -> Evo2Embedder:
    """Make the model."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_tiny("evo2_7b", Path(place))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | SIZES))
        embedder = load_embedder("evo2_7b", checkpoint=folder, device="cpu", random_init=True)
    if not isinstance(embedder, Evo2Embedder):
        raise TypeError(f"evo2_7b is a {type(embedder).__name__}")
    return embedder


def variants(per_site: int) -> StoredVariants:
    """Make substitutions in the middle of random sequences, several per site."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), 2 * SIDE_BP + 1)) for _ in range(N_SITES)]
    rows = [(text, alt) for text in texts for alt in [one for one in "ACGT" if one != text[SIDE_BP]][:per_site]]
    return StoredVariants(
        sequences=[text for text, _ in rows],
        offset_bp=np.full(len(rows), SIDE_BP),
        ref=[text[SIDE_BP] for text, _ in rows],
        alt=[alt for _, alt in rows],
    )


def measure(embedder: Evo2Embedder, per_site: int) -> dict[str, Any]:
    """Time both ways."""
    scorer = VariantLikelihoods(
        alleles=AlleleLikelihoods.of(embedder),
        context=Context(left_bp=SIDE_BP, right_bp=0),
        indel_context=Context(left_bp=SIDE_BP, right_bp=SIDE_BP),
        both_strands=False,
    )
    stored = variants(per_site)
    seconds: dict[bool, float] = {}
    tokens: dict[bool, int] = {}
    scores = {}
    run = embedder.model.run
    for shares in [True, False] * ROUNDS:
        n_tokens: list[int] = []

        def counted(ids_BT: Any, *names: Any, seen: list[int] = n_tokens, **options: Any) -> Any:  # noqa: ANN401
            seen.append(ids_BT.numel())
            return run(ids_BT, *names, **options)

        with patch.object(Evo2Embedder, "shares_prefixes", shares), patch.object(embedder.model, "run", counted):
            start = time.process_time()
            scores[shares] = scorer.of_indels(stored)
            took = time.process_time() - start
        seconds[shares] = min(took, seconds.get(shares, np.inf))
        tokens[shares] = sum(n_tokens)
    return {
        "per_site": per_site,
        "side_bp": SIDE_BP,
        "n_variants": len(stored),
        "shared_s": seconds[True],
        "plain_s": seconds[False],
        "ratio": seconds[False] / seconds[True],
        "token_ratio": tokens[False] / tokens[True],
        "largest_difference": float(np.abs(scores[True] - scores[False]).max()),
    }


if __name__ == "__main__":
    embedder = model()
    rows = [measure(embedder, per_site) for per_site in (1, 3)]
    for row in rows:
        print(
            f"{row['per_site']} per site: {row['ratio']:.2f} times as fast, {row['token_ratio']:.2f} times fewer tokens"
        )
    RESULT.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
