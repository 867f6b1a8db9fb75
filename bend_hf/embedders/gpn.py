"""GPN: convolutional language models of genomes (Benegas et al. 2023), in the first and the later architecture.

    embedder = GPNEmbedder("gpn-brassicales")
    embeddings = embedder("ACGTN", upsample_embeddings=True)          # (5, 512)

Each nucleotide is a token. The ``model_type`` in config.json says which architecture a checkpoint has: ``ConvNet`` is
the first release's and BEND's, ``GPN`` the later one, with the encoders ``convnet`` and ``bytenet``. BEND does not
include these models; both protocols give the same embeddings.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders.convnet import ConvNetEmbedder, tiny_convnet
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from bend_hf.embedders.networks.convnet import ConvNetForMaskedLM
    from bend_hf.embedders.networks.gpn import GPNForMaskedLM


_gpn = partial(
    ModelSpec,
    embedder="gpn:GPNEmbedder",
    family="GPN",
    license="MIT",  # model card of each checkpoint
    verified="golden",
    tiny=tiny_convnet,
)

# Widths and layers: config.json of each on the Hub; n_parameters counts the network with its language-model head.
# Revisions: commits of the Hub repositories.
MODELS: Final = (
    _gpn(
        key="gpn-brassicales",
        checkpoint="songlab/gpn-brassicales",
        revision="eb9c35d0d18571abe84390d22e74f2b21d319ce3",
        width=512,
        n_parameters=65_880_071,
        training_data="Arabidopsis thaliana and 7 other Brassicales",
        paper="https://doi.org/10.1073/pnas.2311219120",
    ),
    _gpn(
        key="gpn-arabidopsis",
        checkpoint="songlab/deprecated-gpn-arabidopsis",  # moved by its authors from songlab/gpn-arabidopsis
        revision="8a3f3becfd2fc7832877ca840646810cfa58e6fc",
        width=512,
        n_parameters=79_002_118,
        training_data="Arabidopsis thaliana",
        paper="https://doi.org/10.1101/2022.08.22.504706",
    ),
)


class GPNEmbedder(ConvNetEmbedder):
    """GPN of the first or the later architecture."""

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
                    "and GPN-Star are not supported, because they read alignments"
                )
