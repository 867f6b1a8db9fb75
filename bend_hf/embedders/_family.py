"""Find the family of this package that reads a checkpoint folder, from its configuration and its vocabulary.

So a folder or a Hub id can be given as a model without naming the family. ``transformers.AutoModel`` does not know most
of these networks, and would read some of them wrongly.

>>> names = [family.embedder for family in FAMILIES if family.reads({"model_type": "caduceus"}, Path())]
>>> names
['caduceus:CaduceusEmbedder']
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.embedders._checkpoint_files import has_merges, read_json, read_vocabulary
from bend_hf.embedders._dna_tokenizer import ids_by_file
from bend_hf.errors import ModelError

# From the fields of config.json and the folder to whether the family reads it.
Reads: TypeAlias = Callable[[Mapping[str, object], Path], bool]

_CONTINUES: Final = "##"  # of WordPiece, on a token that continues a word
_NUCLEOTIDES: Final = re.compile(r"[ACGTN]+")
_RUN_OF_N: Final = re.compile(r"N\{\d+,\}")  # GENA-LM's tokenizers replace a run of N by one token


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family, and how its checkpoints are recognized.

    Attributes:
        embedder: Module and class below ``bend_hf.embedders``.
        reads: Whether a checkpoint belongs to the family.
    """

    embedder: str
    reads: Reads


def family_of(folder: Path) -> str | None:
    """Return ``module:Class`` of the family that reads a folder; None: no family does.

    Raises:
        ModelError: ``config.json`` is damaged.
    """
    if not (folder / "config.json").is_file():
        return None
    fields = read_json(folder / "config.json")
    return next((family.embedder for family in FAMILIES if family.reads(fields, folder)), None)


def _model_type(name: str) -> Reads:
    return lambda fields, _: fields.get("model_type") == name


def _is_dnabert2(fields: Mapping[str, object], _: Path) -> bool:
    return "alibi_starting_size" in fields


def _is_genalm(fields: Mapping[str, object], folder: Path) -> bool:
    if "pre_layer_norm" in fields:
        return True
    tokenizer = folder / "tokenizer.json"
    return (
        fields.get("model_type") == "big_bird"
        and tokenizer.is_file()
        and _RUN_OF_N.search(tokenizer.read_text(encoding="utf-8")) is not None
    )


def _is_nucleotide_transformer(fields: Mapping[str, object], folder: Path) -> bool:
    if "add_bias_fnn" in fields:
        return True
    return fields.get("model_type") == "esm" and 6 in _kmer_lengths(folder) and not _cuts_dna(folder)


def _is_generator(fields: Mapping[str, object], folder: Path) -> bool:
    return fields.get("model_type") == "llama" and _kmer_lengths(folder) == {6} and not _cuts_dna(folder)


def _is_marindna(fields: Mapping[str, object], folder: Path) -> bool:
    if fields.get("model_type") != "qwen3" or has_merges(folder):
        return False
    try:
        return {"[BOS]", *"acgt"} <= set(read_vocabulary(folder))
    except ModelError:
        return False


def _reads_dna_by_merges(*model_types: str) -> Reads:
    """Recognize a network by its type, if its tokenizer was learned on DNA and has the special tokens of BERT."""

    def reads(fields: Mapping[str, object], folder: Path) -> bool:
        if fields.get("model_type") not in model_types or not has_merges(folder):
            return False
        try:
            tokens = read_vocabulary(folder)
        except ModelError:
            return False
        n_dna = sum(_NUCLEOTIDES.fullmatch(token) is not None for token in tokens)
        return 2 * n_dna > len(tokens) and {"[CLS]", "[SEP]", "[PAD]", "[UNK]"} <= set(tokens)

    return reads


def _is_mutbert(fields: Mapping[str, object], folder: Path) -> bool:
    return fields.get("model_type") == "bert" and "rope_theta" in fields and (folder / "tokenizer.json").is_file()


def _is_ntv3(fields: Mapping[str, object], _: Path) -> bool:
    return str(fields.get("model_type")).lower().startswith("ntv3")  # that of post-trained models is longer


def _is_hyenadna(fields: Mapping[str, object], _: Path) -> bool:
    layer = fields.get("layer")  # the original files have no model_type
    return fields.get("model_type") == "hyenadna" or (isinstance(layer, dict) and layer.get("_name_") == "hyena")


def _is_evo2(fields: Mapping[str, object], _: Path) -> bool:
    return "hcl_layer_idxs" in fields  # the published yml files have no model_type


def _is_dnabert(fields: Mapping[str, object], folder: Path) -> bool:
    lengths = _kmer_lengths(folder) if _is_plain_bert(fields) else set()
    return len(lengths) == 1 and 3 <= min(lengths) <= 6 and not _cuts_dna(folder)


def _is_grover(fields: Mapping[str, object], folder: Path) -> bool:
    """Tokens of several lengths, without the merges of a byte-pair tokenizer and the parts of words of WordPiece."""
    if not _is_plain_bert(fields) or has_merges(folder) or len(_kmer_lengths(folder)) < 2:
        return False
    return not any(token.startswith(_CONTINUES) for token in read_vocabulary(folder)) and not _cuts_dna(folder)


def _is_plain_bert(fields: Mapping[str, object]) -> bool:
    return fields.get("model_type") == "bert" and "auto_map" not in fields


def _kmer_lengths(folder: Path) -> set[int]:
    """Return the lengths of the tokens that are nucleotides; empty if the folder has no such vocabulary."""
    try:
        tokens = read_vocabulary(folder)
    except ModelError:
        return set()
    return {len(token) for token in tokens if _NUCLEOTIDES.fullmatch(token)}


def _cuts_dna(folder: Path) -> bool:
    """Whether ``tokenizer.json`` cuts DNA into its tokens by rules of its own, which a family would not follow.

    The one that transformers 5 makes of a ``vocab.txt`` does not: it reads words between blanks, and finds none.
    """
    return ids_by_file(folder) is not None


FAMILIES: Final = (
    Family(embedder="dnabert2:DNABert2Embedder", reads=_is_dnabert2),
    Family(embedder="genalm:GENALMEmbedder", reads=_is_genalm),
    Family(embedder="nucleotide_transformer:NucleotideTransformerEmbedder", reads=_is_nucleotide_transformer),
    Family(embedder="hyenadna:HyenaDNAEmbedder", reads=_is_hyenadna),
    Family(embedder="evo2:Evo2Embedder", reads=_is_evo2),
    Family(embedder="caduceus:CaduceusEmbedder", reads=_model_type("caduceus")),
    Family(embedder="convnet:ConvNetEmbedder", reads=_model_type("ConvNet")),
    Family(embedder="gpn:GPNEmbedder", reads=_model_type("GPN")),
    Family(embedder="awdlstm:AWDLSTMEmbedder", reads=_model_type("AWDLSTM")),
    Family(embedder="bend_mini:BendMiniEmbedder", reads=_model_type("TwoScale")),
    Family(embedder="generator:GENERatorEmbedder", reads=_is_generator),
    Family(embedder="modernbert:ModernBertEmbedder", reads=_reads_dna_by_merges("modernbert")),
    Family(embedder="marindna:MarinDNAEmbedder", reads=_is_marindna),
    Family(embedder="mistral:MistralEmbedder", reads=_reads_dna_by_merges("mistral", "mixtral")),
    Family(embedder="omnidna:OmniDNAEmbedder", reads=_reads_dna_by_merges("olmo-gfm")),
    Family(embedder="generanno:GENERannoEmbedder", reads=_model_type("generanno")),
    Family(embedder="mutbert:MutBertEmbedder", reads=_is_mutbert),
    Family(embedder="ntv3:NTv3Embedder", reads=_is_ntv3),
    Family(embedder="dnabert:DNABertEmbedder", reads=_is_dnabert),
    Family(embedder="grover:GROVEREmbedder", reads=_is_grover),
)
