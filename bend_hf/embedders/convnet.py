"""BEND's convolutional language model: thirty residual layers of dilated convolutions, one row a nucleotide.

    embedder = ConvNetEmbedder("resnetlm")                            # or a folder with BEND's files
    rows = embedder("ACGTN", upsample_embeddings=True)                # (5, 256)

Both protocols give the same rows: BEND embeds one sequence at a time, and its convolutions see zeros beyond the ends.
Batches here are masked at each layer, so that padding reads as such an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.data.download import RemoteFile
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder
from bend_hf.embedders._spec import ModelSpec

if TYPE_CHECKING:
    from bend_hf.embedders.networks.convnet import ConvNetForMaskedLM

# BEND bend/utils/download.py: where its own checkpoints lie, and the files of each
BEND_SHARE: Final = "https://sid.erda.dk/share_redirect/dbQM0pgSlM/pretrained_models"
BEND_FILES: Final = (
    "config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def bend_files(model: str) -> tuple[RemoteFile, ...]:
    """The files of one of BEND's own checkpoints; their sizes and checksums are not published."""
    return tuple(RemoteFile(name=name, url=f"{BEND_SHARE}/{model}/{name}") for name in BEND_FILES)


MODELS: Final = (
    ModelSpec(
        key="resnetlm",  # BEND conf/embedding/embed.yaml
        aliases=("convnet",),  # its class and its folder there
        embedder="convnet:ConvNetEmbedder",
        family="ResNet LM",
        checkpoint=f"{BEND_SHARE}/convnet",
        source="erda",
        files=bend_files("convnet"),
        width=256,
        n_parameters=19_706_880,  # the 30 layers of width 256 and kernel 9 that BEND's paper tells of, without a head
        training_data="human reference genome GRCh38",
        paper="https://arxiv.org/abs/2311.12570",
    ),
)


class ConvNetEmbedder(NucleotideEmbedder):
    """BEND's convolutional language model, or another of its architecture (``model_type`` ConvNet)."""

    model: ConvNetForMaskedLM

    def _load_network(self) -> None:
        self.model = self._build_convnet()

    def _build_convnet(self) -> ConvNetForMaskedLM:
        from bend_hf.embedders.networks.convnet import ConvNetConfig, ConvNetForMaskedLM, rename_key

        config = ConvNetConfig(**read_json(self.folder / "config.json"))
        return self._build(lambda: ConvNetForMaskedLM(config), allow_missing=("cls.*",), rename=rename_key)
