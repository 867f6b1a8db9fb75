"""BEND's AWD-LSTM: a small recurrent language model that reads from left to right, one row a nucleotide.

    embedder = AWDLSTMEmbedder("awdlstm")                             # or a folder with BEND's files
    rows = embedder("ACGTN", upsample_embeddings=True)                # (5, 64)

Both protocols give the same rows. The checkpoint that BEND publishes for embedding has no language-model head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders.convnet import BEND_SHARE, bend_files

if TYPE_CHECKING:
    from torch import nn

    from bend_hf.embedders.networks.awdlstm import AwdLstmForCausalLM

BEND_AWDLSTM: Final = ModelSpec(
    key="awdlstm",  # BEND conf/embedding/embed.yaml
    embedder="awdlstm:AWDLSTMEmbedder",
    family="AWD-LSTM",
    checkpoint=f"{BEND_SHARE}/awd_lstm",
    source="erda",
    files=bend_files("awd_lstm"),
    width=64,  # BEND conf/datadims/embedding_dims.yaml
    direction="causal",
    training_data="human reference genome GRCh38",
    paper="https://arxiv.org/abs/2311.12570",
)
MODELS: Final = (BEND_AWDLSTM,)


class AWDLSTMEmbedder(NucleotideEmbedder):
    """BEND's AWD-LSTM; float32 whatever ``dtype`` says. Layers before the last are ``hidden_size`` wide."""

    direction = "causal"
    head_keys = ("decoder.*",)
    model: AwdLstmForCausalLM

    def _load_network(self) -> None:
        from bend_hf.embedders.networks.awdlstm import UNUSED_KEYS, AwdLstmConfig, AwdLstmForCausalLM, rename_key

        config = AwdLstmConfig(**read_json(self.folder / "config.json"))
        self.model = self._build(
            lambda: AwdLstmForCausalLM(config),
            allow_missing=self.head_keys,
            allow_unexpected=UNUSED_KEYS,
            rename=rename_key,
        )

    @property
    def width(self) -> int:
        """Width of the layer asked for; that of the token vectors for the first state and the last."""
        n_layers = self.model.config.num_hidden_layers
        outer = self.layer in (-1, 0, n_layers, -n_layers - 1)
        return int(self.model.config.input_size if outer else self.model.config.hidden_size)

    def _cast(self, model: nn.Module) -> nn.Module:
        return model  # stays float32: each step would add its rounding to the state, and the network is small
