#!/usr/bin/env bash
# Scores the variants of both tasks of BEND with all models of its paper, as its scripts/run_variant_effects.sh does:
# the cosine distance between the embeddings of REF and ALT at the variant. Finished runs are skipped.
#
#     bash examples/run_variant_effects.sh --data data
#     MODELS="bend-mini dnabert2" bash examples/run_variant_effects.sh --data sample --limit 50
#
# Further words are flags of 'bend-hf run'. The context of each model and the position of its embedding follow from its
# declaration, so --embedding_idx and --extra_context are not needed.
set -euo pipefail

BEND_HF=${BEND_HF:-bend-hf}
OUT=${OUT:-results_variant_effects}
MODELS=${MODELS:-dnabert6 dnabert2 nt_transformer_500m_1000g nt_transformer_1000g nt_transformer_ms \
    nt_transformer_human_ref nt_transformer_v2_500m hyenadna-tiny-1k hyenadna-small-32k hyenadna-medium-160k \
    hyenadna-medium-450k hyenadna-large-1m gena-lm-bert-large-t2t gena-lm-bigbird-base-t2t resnetlm awdlstm grover}

# shellcheck disable=SC2086  # both hold several words
$BEND_HF run variant_effects_expression variant_effects_disease --model $MODELS --out "$OUT" "$@"
# shellcheck disable=SC2086
$BEND_HF report "$OUT" --out "$OUT/report"
