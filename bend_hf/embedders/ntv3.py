"""NTv3, the third Nucleotide Transformer: a masked model of single nucleotides that reads a million of them.

    embedder = load_embedder("ntv3-8m")
    embeddings = embedder("ACGTNNACGT")                                   # (10, 256)

Nothing is added to a sequence. N is a token; another nucleotide than A, C, G, T and N is ``<unk>``. The network needs a
multiple of 128 tokens (2 to the number of its downsamplings), so the end of each sequence, or of each chunk of a long
one, is filled up and the result is cut back: ``bend-2024`` fills with ``<pad>``, the padding of the published
tokenizer, and ``bend-hf-1`` with N, as the authors advise, because the models were not trained on ``<pad>``. Sequences
of whole blocks have the same embeddings in both. A sequence is filled up by itself: an embedding does not depend on the
other sequences of a batch, as it does in the original code.

Layer 0 is the input embeddings. Then follow the levels that shorten the sequence, the layers of the transformer and the
levels that lengthen it again. Each position of a shorter state stands for several nucleotides, which share its row.
Layers differ in width. Post-trained models, which need the species of a sequence, are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json, read_model_max_length, read_vocabulary
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from bend_hf.embedders._spec import ModelOutput
    from bend_hf.embedders.networks.ntv3 import NTv3Config

UNKNOWN, PAD, MASK = "<unk>", "<pad>", "<mask>"
_TOKENS: Final = (UNKNOWN, PAD, MASK, "<cls>", "<eos>", "<bos>", "A", "T", "C", "G", "N")  # of the published vocab.json


def _tiny() -> TinyCheckpoint:
    config = {
        "model_type": "ntv3",
        "architectures": ["NTv3PreTrained"],
        "alphabet_size": len(_TOKENS),
        "num_downsamples": 3,
        "attention_heads": 2,
        "key_size": 8,
        "token_embed_dim": 8,
        "conv_init_embed_dim": 16,
        "embed_dim": 16,
        "ffn_embed_dim": 32,
        "num_layers": 2,
        "num_hidden_layers_head": 0,
        "use_skip_connection": True,
        "deconv_upsample_type": "repeat+conv",
        "deconv_phase": "odd",
        "initializer_range": 0.2,
    }
    vocabulary = {token: number for number, token in enumerate(_TOKENS)}
    return TinyCheckpoint(
        config=config, vocabulary_json=vocabulary, tokenizer_config={"model_max_length": TINY_CONTEXT_TOKENS}
    )


# Addresses, training data and context: the authors' repository instadeepai/nucleotide-transformer, which names only
# "8M", "100M" and "650M" parameters. Parameters of the smallest: counted from the sizes in its configuration, as on its
# page on the Hub. Widths of the others: what third parties report. The page on the Hub gives the license as "other".
_ntv3 = partial(
    ModelSpec,
    embedder="ntv3:NTv3Embedder",
    family="NTv3",
    context_tokens=1_048_576,
    training_data="OpenGenome2: genomes of bacteria, archaea, eukaryotes (human among them) and phages",
    trained_on_human_genome=True,
    paper="https://doi.org/10.64898/2025.12.22.695963",
    verified="golden",
    tiny=_tiny,
)

MODELS: Final = (
    _ntv3(key="ntv3-8m", checkpoint="InstaDeepAI/NTv3_8M_pre", width=256, n_parameters=7_692_475),
    _ntv3(key="ntv3-100m", checkpoint="InstaDeepAI/NTv3_100M_pre", width=768),
    _ntv3(key="ntv3-650m", checkpoint="InstaDeepAI/NTv3_650M_pre", width=1536),
)


class NTv3Embedder(NetworkEmbedder):
    """NTv3, pre-trained, and its fine-tuned copies."""

    head_keys: ClassVar[tuple[str, ...]] = ("core.lm_head.*",)
    _config: NTv3Config

    def _load(self) -> None:
        from bend_hf.embedders.networks import ntv3

        config = ntv3.NTv3Config.published(read_json(self.folder / "config.json"))
        id_of = _read_ids(self.folder)
        missing = [token for token in (UNKNOWN, PAD, MASK, *"ACGTN") if token not in id_of]
        if missing:
            raise ModelError(
                f"the vocabulary of {self.folder} lacks {', '.join(missing)}; expected that of an NTv3, with one token "
                f"per nucleotide"
            )
        self._table = nucleotide_table({base: id_of[base] for base in "ACGTN"}, id_of[UNKNOWN])
        self.pad_id, self.mask_id = id_of[PAD], id_of[MASK]
        self._known = sorted(id_of[base] for base in "ACGT")
        largest = max(int(self._table.max()), self.pad_id, self.mask_id)
        if largest >= config.alphabet_size:
            raise ModelError(
                f"the vocabulary of {self.folder} has the token id {largest}, but alphabet_size is "
                f"{config.alphabet_size} in config.json; the files do not belong together"
            )
        config.filler_token_id = self.pad_id if self.protocol == "bend-2024" else id_of["N"]
        self._config = config
        self._context_tokens = self._read_context()
        self.model = self._build(
            lambda: ntv3.NTv3ForMaskedLM(config),
            allow_missing=self.head_keys,
            allow_unexpected=("*.rotary_embedding.inv_freq",),  # a buffer that the original code stores
            rename=_whole_key,
        )

    def _read_context(self) -> int | None:
        """Read the length of the longest input; None: sequences are never cut."""
        stated = read_model_max_length(self.folder)
        return self.spec.context_tokens if stated is None and self.spec is not None else stated

    @property
    def width(self) -> int:
        """Width of the layer: the towers change it from level to level."""
        widths = self._config.state_widths
        return widths[self.layers[0] if self.layers else self.layer]

    def _n_states(self, fields: Mapping[str, object]) -> int | None:
        """Count the input, the levels of the two towers, and the layers between them."""
        n_levels, n_layers = fields.get("num_downsamples"), fields.get("num_layers")
        return 1 + 2 * n_levels + n_layers if isinstance(n_levels, int) and isinstance(n_layers, int) else None

    def _pick_one(self, output: ModelOutput, layer: int) -> Tensor:
        """Pick a hidden state, each position of a shorter one repeated for its nucleotides."""
        state_BTD = super()._pick_one(output, layer)
        n_states = len(self._config.state_widths)
        if layer % n_states == n_states - 1:
            return state_BTD
        n_tokens, block = output.last_hidden_state.shape[1], self._config.block_tokens
        n_positions = -(-n_tokens // block) * block
        return state_BTD.repeat_interleave(n_positions // state_BTD.shape[1], dim=1)[:, :n_tokens]

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._table)
        return assemble(stream, self._window(self._context_tokens))

    def _loss_tokens(self) -> list[int]:
        """Return the ids of A, C, G and T; N has no loss."""
        return self._known


def _read_ids(folder: Path) -> dict[str, int]:
    """Read the id of each token from ``vocab.json``, or from the files that other tokenizers have."""
    path = folder / "vocab.json"
    if not path.is_file():
        return {token: number for number, token in enumerate(read_vocabulary(folder))}
    ids = read_json(path)
    odd = {token: number for token, number in ids.items() if not isinstance(number, int) or number < 0}
    if odd:
        raise ModelError(f"{path} has {odd}; expected an id for each token. Download it again")
    return ids


def _whole_key(key: str) -> str:
    """Add the prefix of the encoder, which files of a bare encoder lack."""
    return key if key.startswith("core.") else f"core.{key}"
