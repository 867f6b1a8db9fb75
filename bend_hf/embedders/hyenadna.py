"""HyenaDNA: a causal model of single nucleotides, with up to a million of them in one input.

    embedder = HyenaDNAEmbedder("hyenadna-tiny-1k")
    embeddings = embedder("ACGTNNACGT", upsample_embeddings=True)         # (10, 128)

Two kinds of published files are supported; config.json shows which kind it is. The original files (``weights.ckpt``)
have [CLS] in front and [SEP] at the end, as in BEND; the tokenizer of the ``-hf`` files adds only [SEP]. The model is
causal, so [CLS] changes every embedding. Longer sequences are cut into chunks of ``max_seq_len`` tokens, each with its
own special tokens. Both protocols give the same embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json, resolve_checkpoint
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides

log = logging.getLogger(__name__)

# The vocabulary of HyenaDNA and Caduceus: [CLS] 0, [SEP] 1, [BOS] 2, [MASK] 3, [PAD] 4, [RESERVED] 5, [UNK] 6, then
# the nucleotides (kuleshov-group/caduceus, tokenization_caduceus.py).
CLS, SEP, PAD, UNKNOWN = 0, 1, 4, 6
NUCLEOTIDES: Final = range(7, 12)
NUCLEOTIDE_TABLE: Final = nucleotide_table(dict(zip("ACGTN", NUCLEOTIDES, strict=True)), unknown=UNKNOWN)

# Counters of a metric that the training code may have saved with the network; not weights.
_HARNESS_KEYS: Final = ("*torchmetrics.*",)
# Objects other than tensors in the published weights.ckpt files, from the Hub's list of their pickle imports.
_SETTINGS: Final = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
)


_TINY_SIZES: Final = {"d_model": 16, "n_layer": 2, "d_inner": 64, "vocab_size": 12, "pad_vocab_size_multiple": 8}


def _tiny() -> TinyCheckpoint:
    layer = {
        "_name_": "hyena",
        "emb_dim": 5,
        "filter_order": 16,
        "local_order": 3,
        "l_max": TINY_CONTEXT_TOKENS,
        "w": 10,
    }
    return TinyCheckpoint(config={**_TINY_SIZES, "layer": layer, "residual_in_fp32": True})


def _tiny_hf() -> TinyCheckpoint:
    context = {"model_type": "hyenadna", "max_seq_len": TINY_CONTEXT_TOKENS}
    filters = {"emb_dim": 5, "filter_order": 16, "short_filter_order": 3, "hyena_order": 2}
    return TinyCheckpoint(config={**_TINY_SIZES, **context, **filters})


def _specs(
    name: str, *, context_tokens: int, n_parameters: int, width: int = 256, original: str, hf: str
) -> tuple[ModelSpec, ...]:
    return tuple(
        ModelSpec(
            key=f"hyenadna-{name}{suffix}",
            embedder="hyenadna:HyenaDNAEmbedder",
            family="HyenaDNA",
            checkpoint=f"LongSafari/hyenadna-{name}-seqlen{suffix}",
            revision=revision,
            width=width,
            n_parameters=n_parameters,
            context_tokens=context_tokens,
            direction="causal",
            training_data="human genome (assembly and regions unknown)",  # no source at hand confirms more
            trained_on_human_genome=True,
            license="BSD-3-Clause",
            paper="https://arxiv.org/abs/2306.15794",
            verified="golden",
            tiny=tiny,
        )
        for suffix, revision, tiny in (("", original, _tiny), ("-hf", hf, _tiny_hf))
    )


# Revisions: commits on the Hub with configuration and weights.
# Parameters: the network with its head, counted from the configurations. With the stored positions of the filters they
# give the sizes that the Hub lists for the -hf files (1.8, 16.3 and 57 MB).
MODELS: Final = (
    *_specs(
        "tiny-1k",
        context_tokens=1026,
        n_parameters=438_144,
        width=128,
        original="2bdeeeeecb23897b2d708774012443ada5ae3789",
        hf="27cdeb1a19b1b804489423eebf4ee8ac93aa4450",
    ),
    *_specs(
        "small-32k",
        context_tokens=32_770,
        n_parameters=3_281_664,
        original="2fef9fc9456d103292248191b47854d1ccdc5f86",
        hf="ea0088449336057ea86be9e8de4f35775f620f46",
    ),
    *_specs(
        "medium-160k",
        context_tokens=160_002,
        n_parameters=6_554_624,
        original="f338a24b8712d80552f1f83d3d91e8c8b37f33cd",
        hf="b445369f730261b58cdb621411c777069e760ff6",
    ),
    *_specs(
        "medium-450k",
        context_tokens=450_002,
        n_parameters=6_554_624,
        original="820fe013ec58c0f87f8caba21af0c48fdc8d0ddd",
        hf="374081eb47b45c398efbd76fbbca8221d2c97a3a",
    ),
    *_specs(
        "large-1m",
        context_tokens=1_000_002,
        n_parameters=6_554_624,
        original="ddaaf896d14416b84649b976fe8bc29d8aa95de0",
        hf="c5d8bc70308e478a16f1394a4a61dbf04c4e594c",
    ),
)


class HyenaDNAEmbedder(NetworkEmbedder):
    """HyenaDNA from either kind of published files."""

    direction: Direction = "causal"

    def _folder(self) -> Path:
        """Return the folder of the checkpoint. A published model whose folder is named but missing is put there.

        BEND names its models so: ``pretrained_models/hyenadna/hyenadna-tiny-1k-seqlen``.
        """
        path = Path(str(self.checkpoint)).expanduser()
        published = next((spec for spec in MODELS if spec.checkpoint.partition("/")[2] == path.name), None)
        is_hub_id = len(path.parts) == 2 and not path.is_absolute()
        if published is None or is_hub_id or path.is_dir():
            return super()._folder()
        log.info("%s is not here; %s is downloaded into it", path, published.checkpoint)
        return resolve_checkpoint(
            published.checkpoint,
            revision=self.revision or published.revision,
            with_weights=not self.random_init,
            into=path,
        )

    def _n_states(self, fields: Mapping[str, object]) -> int | None:
        n_states = super()._n_states(fields)
        return (
            None if n_states is None else n_states + 1
        )  # the output of the last layer before and after the final norm

    def _load(self) -> None:
        from bend_hf.embedders.networks import hyenadna

        fields = read_json(self.folder / "config.json")
        config = hyenadna.config_from_json(fields)
        with _skipped_settings():
            self.model = self._build(
                lambda: hyenadna.HyenaDNAForCausalLM(config),
                allow_missing=("lm_head.weight",),
                allow_unexpected=(*hyenadna.SHARED_FREQUENCY_KEYS, *_HARNESS_KEYS),
                rename=hyenadna.rename_key,
                nested="state_dict",
            )
        self.pad_id = PAD
        self._context_tokens: int = config.max_seq_len
        self._prefix = (CLS,) if hyenadna.is_original(fields) else ()

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), NUCLEOTIDE_TABLE)
        return assemble(stream, self._window(self._context_tokens, prefix=self._prefix, suffix=(SEP,)))

    def _loss_tokens(self) -> range:
        """Return the ids of A, C, G, T and N, as BEND computes the loss."""
        return NUCLEOTIDES


class _Skipped:
    """Stand-in for an object of the training settings in a file; it keeps nothing of the contents."""

    def __setstate__(self, state: object) -> None:
        pass


def _empty_dict(*_: object) -> dict[object, object]:
    return {}


def _skipped_settings() -> AbstractContextManager[None]:
    """Let ``torch.load(weights_only=True)`` skip the training settings in published files without running code."""
    import torch

    harmless: list[object] = [(_Skipped, name) for name in _SETTINGS]
    harmless += [(_empty_dict, "collections.defaultdict"), dict, list, int]
    context: AbstractContextManager[None] = torch.serialization.safe_globals(harmless)  # type: ignore[arg-type]  # torch names only one kind of its entries
    return context
