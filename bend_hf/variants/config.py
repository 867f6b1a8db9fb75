"""What is scored and how, and the flags of ``bend-hf variants``; light to import.

>>> VariantRun(genome=Path("hg38.fa"), both_strands=True).settings.need_likelihood
True
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

from bend_hf.config import Condition, ModelFlags, check_conditions, flag
from bend_hf.errors import ConfigError
from bend_hf.tasks import VariantSpec
from bend_hf.types import RefMismatch

Indels = Literal["error", "drop", "likelihood"]
INDELS: Final[tuple[Indels, ...]] = get_args(Indels)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """What is scored, and how.

    Attributes:
        context: How much sequence the model is shown around a variant.
        window_bp: Nucleotides on each side of the variant for ``window_distance``.
        likelihood: Whether to compute the log-likelihood ratio and the entropy: one more forward pass per site of a
            masked model; a causal model has computed it for the reference allele.
        need_likelihood: Whether a model without likelihoods is an error. If not, its columns are null.
        both_strands: Whether likelihoods are averaged over both strands.
        whole_window: Whether the log-likelihood ratio of a substitution is that of the variant and everything behind
            it, as for insertions and deletions, and not of the base at the site. For causal models.
        embedding_idx: BEND's index of the embedding to compare, counted from the start of the sequence in nucleotides
            (in tokens if tokens overlap); None compares the embedding that covers the variant.
        averages: Whether to compute distances averaged over the window and the sequence. Without them, a model's last
            layer is computed at the variant alone if its family can.
        keep_embeddings: Whether to keep both embeddings of each variant, to train a head on them.
    """

    context: VariantSpec = VariantSpec()
    window_bp: int = 16
    likelihood: bool = True
    need_likelihood: bool = False
    both_strands: bool = False
    whole_window: bool = False
    embedding_idx: int | None = None
    averages: bool = True
    keep_embeddings: bool = False


@dataclass(frozen=True, kw_only=True)
class VariantRun(ModelFlags):
    """Score a file of variants with one model; each field is a flag of ``bend-hf variants``.

    Raises:
        ConfigError: A number is out of range, or two flags exclude each other.
    """

    genome: Path = flag(None, "FASTA of the genome that the variants refer to", concerns="data", by_content=True)
    out: Path = flag(Path("results"), "folder for scores, record and figure", affects="nothing")
    ref_mismatch: RefMismatch = flag(
        "error", "what to do with a variant whose REF is not the genome's base", group="data"
    )
    indels: Indels = flag(
        "error", "what to do with insertions and deletions; likelihood scores them by that alone", group="data"
    )
    label_column: str | None = flag(
        None, "BED column or VCF INFO key with labels 0 and 1; default: label", group="data"
    )
    consequence_column: str | None = flag(
        None, "BED column or VCF INFO key to group results by; default: full_label, if present", group="data"
    )
    embedding_idx: int | None = flag(
        None, "BEND's index: compare this embedding instead of the variant's own", group="scores"
    )
    window_bp: int = flag(16, "nucleotides on each side of the variant for window_distance", group="scores")
    no_averages: bool = flag(
        False, "skip distances averaged around the variant; faster with some models", group="scores"
    )
    no_likelihood: bool = flag(
        False, "skip likelihoods, which cost masked models one forward pass per site", group="scores"
    )
    both_strands: bool = flag(False, "average likelihoods over both strands", group="scores")
    whole_window: bool = flag(
        False,
        "log-likelihood ratio of all that a causal model reads from the variant on, not of the site alone",
        group="scores",
    )
    probe: bool = flag(False, "also train a linear and a small MLP head on labeled variants", group="head")
    csv: bool = flag(False, "also write the CSV of BEND's script", affects="nothing")
    no_plot: bool = flag(False, "draw no figure", affects="nothing")
    force: bool = flag(False, "score again what has a record in --out", affects="nothing", in_command=False)
    seed: int = flag(0, "seed of random weights, of the trained heads and of the intervals")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.genome is None:
            raise ConfigError("--genome FASTA is needed: sequences are read from it, and REF is checked against it")
        if self.window_bp < 0:
            raise ConfigError(f"--window-bp is {self.window_bp}; it must be 0 or more")
        if self.indels == "likelihood" and self.no_likelihood:
            raise ConfigError("--indels likelihood and --no-likelihood exclude each other; leave one out")
        check_conditions(self, {item.name: item.default for item in fields(self)}, _CONDITIONS)

    @property
    def settings(self) -> ScoreSettings:
        """The scores that the flags ask for."""
        return ScoreSettings(
            window_bp=self.window_bp,
            likelihood=not self.no_likelihood,
            need_likelihood=self.both_strands or self.whole_window or self.indels == "likelihood",
            both_strands=self.both_strands,
            whole_window=self.whole_window,
            embedding_idx=self.embedding_idx,
            averages=not self.no_averages,
            keep_embeddings=self.probe,
        )


_CONDITIONS: Final = (
    Condition(
        flags=("both_strands", "whole_window"),
        met=lambda config: not config.no_likelihood,
        reason="--no-likelihood skips likelihoods",
    ),
    Condition(
        flags=("window_bp",),
        met=lambda config: not config.no_averages,
        reason="--no-averages skips distances averaged around the variant",
    ),
)
