"""GPN (Benegas et al. 2023): convolutional language models of genomes, in the first and the later architecture.

    embedder = GPNEmbedder("gpn-brassicales")
    rows = embedder("ACGTN", upsample_embeddings=True)                # (5, 512)

Which architecture a checkpoint is, the ``model_type`` of its config.json says: ``ConvNet`` is the first release's, and
BEND's; ``GPN`` the later one, with its encoders ``convnet`` and ``bytenet``. BEND does not have these models; both
protocols give the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders.convnet import ConvNetEmbedder
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from bend_hf.embedders.networks.convnet import ConvNetForMaskedLM
    from bend_hf.embedders.networks.gpn import GPNForMaskedLM


def _declare(
    key: str, checkpoint: str, *, revision: str, width: int, n_parameters: int, training_data: str, paper: str
) -> ModelSpec:
    return ModelSpec(
        key=key,
        embedder="gpn:GPNEmbedder",
        family="GPN",
        checkpoint=checkpoint,
        revision=revision,
        width=width,
        n_parameters=n_parameters,
        training_data=training_data,
        license="MIT",  # model card of each checkpoint
        paper=paper,
    )


# Widths and layers: config.json of each on the Hub; n_parameters counts the network with its language-model head.
# Revisions: commits of the Hub repositories.
MODELS: Final = (
    _declare(
        "gpn-brassicales",
        "songlab/gpn-brassicales",
        revision="eb9c35d0d18571abe84390d22e74f2b21d319ce3",
        width=512,
        n_parameters=65_880_071,
        training_data="Arabidopsis thaliana and 7 other Brassicales",
        paper="https://doi.org/10.1073/pnas.2311219120",
    ),
    _declare(
        "gpn-arabidopsis",
        "songlab/deprecated-gpn-arabidopsis",  # where its authors moved songlab/gpn-arabidopsis
        revision="8a3f3becfd2fc7832877ca840646810cfa58e6fc",
        width=512,
        n_parameters=79_002_118,
        training_data="Arabidopsis thaliana",
        paper="https://doi.org/10.1101/2022.08.22.504706",
    ),
)


class GPNEmbedder(ConvNetEmbedder):
    """GPN, first architecture or later one."""

    model: ConvNetForMaskedLM | GPNForMaskedLM

    def _load_network(self) -> None:
        keys = read_json(self.folder / "config.json")
        match keys.get("model_type"):
            case "ConvNet":
                self.model = self._build_convnet()
            case "GPN":
                from bend_hf.embedders.networks.gpn import GPNConfig, GPNForMaskedLM

                config = GPNConfig(**keys)
                self.model = self._build(lambda: GPNForMaskedLM(config), allow_missing=("cls.*",))
            case other:
                raise ModelError(
                    f"{self.folder / 'config.json'} has model_type {other!r}; expected 'ConvNet' or 'GPN'. GPN-MSA "
                    "and GPN-Star read alignments, not sequence alone"
                )
