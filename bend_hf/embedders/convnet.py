"""ResNet LM: the convolutional language model that BEND trained, thirty residual layers of dilated convolutions.

    embedder = ConvNetEmbedder("resnetlm")                            # or a folder with BEND's files
    embeddings = embedder("ACGTN", upsample_embeddings=True)          # (5, 256)

Each nucleotide is a token. Both protocols give the same embeddings. BEND embeds one sequence at a time, and its
convolutions see zeros beyond the ends. Here a mask at each layer makes padding equal to these zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.data.download import RemoteFile
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder, tiny_nucleotide_tokenizer
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint

if TYPE_CHECKING:
    from bend_hf.embedders.networks.convnet import ConvNetForMaskedLM

# BEND bend/utils/download.py: the address of its own checkpoints, and their files
BEND_SHARE: Final = "https://sid.erda.dk/share_redirect/dbQM0pgSlM/pretrained_models"
BEND_FILES: Final = (
    "config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def bend_files(model: str) -> tuple[RemoteFile, ...]:
    """List the files of one of BEND's own checkpoints. Their sizes and checksums are not published."""
    return tuple(RemoteFile(name=name, url=f"{BEND_SHARE}/{model}/{name}") for name in BEND_FILES)


def tiny_convnet() -> TinyCheckpoint:
    """Make a tiny checkpoint, which is also one of the first GPN architecture."""
    config = {
        "model_type": "ConvNet",
        "hidden_size": 16,
        "n_layers": 3,
        "kernel_size": 9,
        "vocab_size": 7,
        "dilation_cycle": 6,
        "dilation_double_every": 1,
        "dilation_max": 32,
        "initializer_range": 0.2,
    }
    return TinyCheckpoint(config=config, tokenizer=tiny_nucleotide_tokenizer())


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
        n_parameters=19_706_880,  # BEND's paper: 30 layers, width 256, kernel 9; without a head
        training_data="human reference genome GRCh38",
        trained_on_human_genome=True,
        paper="https://arxiv.org/abs/2311.12570",
        verified="golden",
        tiny=tiny_convnet,
    ),
)


class ConvNetEmbedder(NucleotideEmbedder):
    """BEND's convolutional language model, or another model of its architecture (``model_type`` ConvNet)."""

    model: ConvNetForMaskedLM

    def _load_network(self) -> None:
        self.model = self._build_convnet()

    def _build_convnet(self) -> ConvNetForMaskedLM:
        from bend_hf.embedders.networks.convnet import ConvNetConfig, ConvNetForMaskedLM, rename_key

        config = ConvNetConfig(**read_json(self.folder / "config.json"))
        return self._build(lambda: ConvNetForMaskedLM(config), allow_missing=("cls.*",), rename=rename_key)
