"""What is scored and how, and the flags of ``bend-hf variants``; light to import.

>>> VariantRun(genome=Path("hg38.fa"), both_strands=True).settings.need_likelihood
True
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from bend_hf.config import ModelFlags, flag
from bend_hf.errors import ConfigError
from bend_hf.types import RefMismatch

Indels = Literal["error", "drop", "likelihood"]
INDELS: Final[tuple[Indels, ...]] = get_args(Indels)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What is scored, and how.

    Attributes:
        window_bp: Nucleotides on each side of the variant that ``window_distance`` takes in.
        likelihood: Whether the log-likelihood ratio and the entropy are asked for: one forward a site more.
        need_likelihood: Whether a model without likelihoods is an error; otherwise its columns are null.
        both_strands: Whether likelihoods are averaged over both strands.
        embedding_idx: BEND's number: which row is compared, counted in nucleotides (in tokens where they overlap)
            from the sequence's start; None: the row that holds the variant.
        averages: Whether distances averaged over the window and the sequence are asked for; without them a model's
            last layer is computed at the variant alone, where its family can.
        keep_rows: Whether the two rows of each variant are kept, for a probe.
    """

    window_bp: int = 16
    likelihood: bool = True
    need_likelihood: bool = False
    both_strands: bool = False
    embedding_idx: int | None = None
    averages: bool = True
    keep_rows: bool = False


@dataclass(frozen=True, kw_only=True)
class VariantRun(ModelFlags):
    """One model on variants; the flags of ``bend-hf variants`` map one to one to the fields.

    Raises:
        ConfigError: A number is out of its range.
    """

    genome: Path = flag(None, "FASTA that the variants speak of")
    out: Path = flag(Path("results"), "folder of scores, record and picture")
    ref_mismatch: RefMismatch = flag("error", "what to do with a variant whose REF is not the genome's base")
    indels: Indels = flag("error", "what to do with insertions and deletions; likelihood scores them by that alone")
    label_column: str | None = flag(None, "column of the bed, or INFO key of the VCF, with 0 and 1; default: label")
    consequence_column: str | None = flag(None, "column or INFO key to report by; default: full_label, if there")
    embedding_idx: int | None = flag(None, "BEND's number: compare this row instead of the variant's own")
    window_bp: int = flag(16, "nucleotides on each side of the variant for the distance around it")
    no_averages: bool = flag(False, "leave out the distances averaged around the variant; some models are faster then")
    no_likelihood: bool = flag(False, "leave out likelihoods, which cost one forward a site")
    both_strands: bool = flag(False, "average likelihoods over both strands")
    probe: bool = flag(False, "also train a linear and a small probe on labelled variants")
    csv: bool = flag(False, "also write the CSV of BEND's own script")
    no_plot: bool = flag(False, "draw no picture")
    seed: int = flag(0, "seed of random weights, of the probe and of the intervals")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.genome is None:
            raise ConfigError("--genome FASTA is needed: sequences are read from it, and REF is checked against it")
        if self.window_bp < 0:
            raise ConfigError(f"--window-bp is {self.window_bp}; it must be 0 or more")
        if self.indels == "likelihood" and self.no_likelihood:
            raise ConfigError("--indels likelihood and --no-likelihood exclude each other; leave one out")

    @property
    def settings(self) -> ScoreSettings:
        """What is scored."""
        return ScoreSettings(
            window_bp=self.window_bp,
            likelihood=not self.no_likelihood,
            need_likelihood=self.both_strands or self.indels == "likelihood",
            both_strands=self.both_strands,
            embedding_idx=self.embedding_idx,
            averages=not self.no_averages,
            keep_rows=self.probe,
        )
