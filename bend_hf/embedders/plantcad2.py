"""PlantCAD2: a Caduceus with Mamba-2 blocks, for genomes of flowering plants.

    embedder = load_embedder("plantcad2-small")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 1536)

A nucleotide other than A, C, G and T is [UNK], and nothing is added to a sequence. A row holds the two strands side by
side, as those of ``caduceus-ps``. ``bend-2024`` runs every sequence whole;
``bend-hf-1`` cuts sequences at the length that the model was trained on.
"""

from __future__ import annotations

from typing import Final

from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders.caduceus import tiny_caduceus


def _tiny() -> TinyCheckpoint:
    """Make a tiny checkpoint in the layout of the published code: nested, without fields that have their default."""
    plain = tiny_caduceus(both_strands=True, own_tokens=True)
    config = {
        "model_type": "caduceus",
        "residual_in_fp32": True,
        "layer_cfg": {"mamba_cfg": {"ssm_cfg": {"d_state": 4, "headdim": 8}}, "model_type": ""},
        "norm_cfg": {"model_type": ""},
        **{
            field: plain.config[field]
            for field in (
                *("d_model", "n_layer", "vocab_size", "pad_vocab_size_multiple", "rcps", "complement_map"),
                *("bidirectional", "bidirectional_strategy", "bidirectional_weight_tie"),
            )
        },
    }
    return TinyCheckpoint(config=config, tokenizer=plain.tokenizer, tokenizer_config=plain.tokenizer_config)


def _spec(size: str, checkpoint: str, *, strand_width: int, n_parameters: int) -> ModelSpec:
    return ModelSpec(
        key=f"plantcad2-{size}",
        embedder="caduceus:CaduceusEmbedder",
        family="Caduceus",
        checkpoint=f"kuleshov-group/{checkpoint}",
        width=2 * strand_width,
        n_parameters=n_parameters,
        context_tokens=8192,
        training_data="genomes of flowering plants",
        license="Apache-2.0",
        paper="https://doi.org/10.1101/2025.08.27.672609",
        verified="golden",
        tiny=_tiny,
    )


# Addresses, depths, the widths of one strand (in the names), context and license: the authors' repository
# kuleshov-group/PlantCaduceus. Rows hold both strands: their repository plantcad/plantcad2, which splits them.
# Parameters: counted from these sizes with 64 states and heads of 64 channels, which give the 88, 311 and 694 million
# that third parties report.
MODELS: Final = (
    _spec("small", "PlantCAD2-Small-l24-d0768", strand_width=768, n_parameters=88_238_208),
    _spec("medium", "PlantCAD2-Medium-l48-d1024", strand_width=1024, n_parameters=311_162_880),
    _spec("large", "PlantCAD2-Large-l48-d1536", strand_width=1536, n_parameters=694_385_664),
)
