"""AWD-LSTM: the small recurrent language model that BEND trained as a baseline. It reads from left to right.

    embedder = AWDLSTMEmbedder("awdlstm")                             # or a folder with BEND's files
    embeddings = embedder("ACGTN", upsample_embeddings=True)          # (5, 64)

Each nucleotide is a token. Both protocols give the same embeddings. The checkpoint that BEND publishes for embedding
has no language-model head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._nucleotides import NucleotideEmbedder, tiny_nucleotide_tokenizer
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders.convnet import BEND_SHARE, bend_files

if TYPE_CHECKING:
    from torch import nn

    from bend_hf.embedders.networks.awdlstm import AwdLstmForCausalLM


def _tiny() -> TinyCheckpoint:
    config = {
        "model_type": "AWDLSTM",
        "input_size": 16,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "vocab_size": 7,
        "bidirectional": False,
        "batch_first": True,
        "initializer_range": 0.3,
    }
    return TinyCheckpoint(config=config, tokenizer=tiny_nucleotide_tokenizer())


BEND_AWDLSTM: Final = ModelSpec(
    key="awdlstm",  # BEND conf/embedding/embed.yaml
    embedder="awdlstm:AWDLSTMEmbedder",
    family="AWD-LSTM",
    checkpoint=f"{BEND_SHARE}/awd_lstm",
    source="erda",
    files=bend_files("awd_lstm"),
    width=64,  # BEND conf/datadims/embedding_dims.yaml
    direction="causal",
    training_data="unknown",  # no source at hand confirms more
    trained_on_human_genome=True,
    paper="https://arxiv.org/abs/2311.12570",
    verified="golden",
    tiny=_tiny,
)
MODELS: Final = (BEND_AWDLSTM,)


class AWDLSTMEmbedder(NucleotideEmbedder):
    """BEND's AWD-LSTM. It always computes in float32. Layers before the last are ``hidden_size`` wide."""

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
        """Width of the selected layer; the input embeddings and the last layer are ``input_size`` wide."""
        n_layers = self.model.config.num_hidden_layers
        outer = self.layer in (-1, 0, n_layers, -n_layers - 1)
        return int(self.model.config.input_size if outer else self.model.config.hidden_size)

    def _cast(self, model: nn.Module) -> nn.Module:
        return model  # float32: rounding errors would add up in the state, and the network is small
