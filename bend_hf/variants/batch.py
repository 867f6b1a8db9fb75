"""A batch of variants and what a model computes for both alleles; each quantity is computed once, when first used.

    model = VariantModel.of(embedder, ScoreSettings())
    batch = VariantBatch(model=model, stored=StoredVariants.of(table))
    batch.ref_embeddings, batch.log_likelihood_ratio

This is what the scores in ``bend_hf.variants.scores`` are computed from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._probe import identity_in
from bend_hf.errors import ConfigError, ModelError
from bend_hf.types import Ints, Json
from bend_hf.variants.allele_embeddings import AlleleEmbeddings, EmbeddingsOnDevice, TokenLayout, tokens_overlap
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods, SiteLikelihoods, VariantLikelihoods
from bend_hf.variants.allele_segments import SegmentDistances
from bend_hf.variants.alleles import Alleles, Context, Distinct, StoredVariants, distinct
from bend_hf.variants.config import ScoreSettings
from bend_hf.variants.scores import own_scores

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder

Value = TypeVar("Value")


class computed_once(Generic[Value]):  # noqa: N801  a decorator
    """A property that keeps its value, for batches that are computed in threads of their own.

    ``functools.cached_property`` of Python 3.11 holds one lock for all instances while it computes.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        value = self._function(instance)
        instance.__dict__[self._function.__name__] = value  # which is found before this property from now on
        return value


@dataclass(frozen=True, kw_only=True)
class VariantModel:
    """A model and the settings it scores by.

    Attributes:
        embedder: The model.
        settings: What is scored.
        context: What the model is shown around a variant.
        likelihoods: Its likelihoods of variants; None if it has none or they were not asked for.
        no_likelihood: Why there are no likelihoods; empty if there are.
        overlaps: Whether its tokens share nucleotides.
    """

    embedder: Embedder
    settings: ScoreSettings
    context: Context
    likelihoods: VariantLikelihoods | None
    no_likelihood: str
    overlaps: bool

    @classmethod
    def of(cls, embedder: Embedder, settings: ScoreSettings) -> VariantModel:
        """Find out what a model can score.

        Raises:
            ModelError: Likelihoods are needed and the model has none.
        """
        embedder.load()
        if embedder.width and embedder.pooled:
            raise ModelError(
                f"{embedder.name} returns one embedding per sequence, but variants are compared at their place; "
                "expected one embedding per nucleotide, of shape (nucleotides, width)"
            )
        if settings.whole_window and embedder.direction != "causal":
            raise ConfigError(
                f"{embedder.name} is not causal, so that the likelihood of a whole window is not the sum over its "
                "tokens; leave out --whole-window"
            )
        context = Context.of(settings.context, causal=embedder.direction == "causal")
        likelihoods, reason = None, "" if settings.likelihood else "they were not asked for"
        if settings.likelihood:
            try:
                likelihoods = VariantLikelihoods(
                    alleles=AlleleLikelihoods.of(embedder),
                    context=context,
                    indel_context=Context(left_bp=context.left_bp, right_bp=settings.context.context_bp),
                    both_strands=settings.both_strands,
                )
            except ModelError as error:
                if settings.need_likelihood:
                    raise
                reason = str(error)
        return cls(
            embedder=embedder,
            settings=settings,
            context=context,
            likelihoods=likelihoods,
            no_likelihood=reason,
            overlaps=tokens_overlap(embedder),
        )

    def identity_in(self, folder: Path) -> dict[str, Json]:
        """Return everything besides the variants that affects the scores.

        Args:
            folder: Where finished batches are kept, with what recognizes a user's model; see ``embedders._probe``.
        """
        return {
            "embedder": dict(identity_in(folder, self.embedder)),
            "batch_tokens": self.embedder.batch_tokens,
            "settings": asdict(self.settings),
            "own_scores": dict(own_scores()),
        }


@dataclass(frozen=True, kw_only=True)
class VariantBatch:
    """n variants, either substitutions of one base or insertions and deletions.

    Attributes:
        model: Computes what is asked for.
        stored: The variants as a dataset stores them.
    """

    model: VariantModel
    stored: StoredVariants

    @property
    def settings(self) -> ScoreSettings:
        """What is scored."""
        return self.model.settings

    @computed_once
    def alleles(self) -> Alleles:
        """The sequences that the model is shown."""
        return self.stored.alleles(self.model.context)

    @computed_once
    def ref_embeddings(self) -> NDArray[np.float64]:
        """Embeddings of the reference alleles at the variant, shape (n, D)."""
        return self._at_variant[: len(self.stored)]

    @computed_once
    def alt_embeddings(self) -> NDArray[np.float64]:
        """Embeddings of the alternative alleles at the variant, shape (n, D)."""
        return self._at_variant[len(self.stored) :]

    @computed_once
    def segment_distances(self) -> SegmentDistances:
        """Cosine distance of both alleles' embeddings along the sequence."""
        return SegmentDistances.of(self._everywhere, self._ref, self._alt)

    @computed_once
    def log_likelihood_ratio(self) -> NDArray[np.float64]:
        """Log-likelihood of ALT minus that of REF, shape (n,)."""
        if self.alleles.is_substitution.all() and not self.settings.whole_window:
            return self._sites.log_likelihood_ratio
        return self._likelihoods.of_indels(self.stored)

    @property
    def entropy_bits(self) -> NDArray[np.float64]:
        """Entropy of the base at the site, for substitutions, shape (n,)."""
        return self._sites.entropy_bits

    @property
    def _likelihoods(self) -> VariantLikelihoods:
        if self.model.likelihoods is None:
            raise ModelError(f"{self.model.embedder.name} gives no likelihoods: {self.model.no_likelihood}")
        return self.model.likelihoods

    @computed_once
    def _sites(self) -> SiteLikelihoods:
        return self._likelihoods.of_substitutions(self.stored, self._before_variant)

    @computed_once
    def _distinct(self) -> Distinct:
        """The distinct sequences, and the index into them first of each REF, then of each ALT."""
        return distinct(self.alleles.ref + self.alleles.alt)

    @property
    def _ref(self) -> Ints:
        return self._distinct.code[: len(self.stored)]

    @property
    def _alt(self) -> Ints:
        return self._distinct.code[len(self.stored) :]

    @computed_once
    def _embeddings(self) -> AlleleEmbeddings:
        return AlleleEmbeddings.of(self.model.embedder, self._distinct.texts)

    @computed_once
    def _everywhere(self) -> EmbeddingsOnDevice:
        return self._embeddings.all()

    @computed_once
    def _at_variant(self) -> NDArray[np.float64]:
        """Embeddings at the variant, first of REF, then of ALT, shape (2n, D)."""
        found: NDArray[np.float64] = self._selected[: 2 * len(self.stored)].cpu().numpy().astype(np.float64)
        return found

    @property
    def _before_variant(self) -> Tensor | None:
        """Embeddings of REF at the token before the variant, on the device, shape (n, D); None if they are not used."""
        return self._selected[2 * len(self.stored) :] if self._before is not None else None

    @computed_once
    def _selected(self) -> Tensor:
        """Embeddings at the variant of REF and of ALT, and those of REF before it if likelihoods follow from them."""
        embeddings = self._embeddings
        index = [self._index(embeddings.layout, sequence) for sequence in (self._ref, self._alt)]
        index += [] if self._before is None else [self._before]
        source = self._everywhere if self.settings.averages else embeddings
        return source.some(np.concatenate(index))

    @computed_once
    def _before(self) -> Ints | None:
        """Index of the token before each variant; None if it does not decide likelihoods, or a variant has none."""
        likelihoods, layout = self.model.likelihoods, self._embeddings.layout
        if likelihoods is None or likelihoods.alleles.head is None or self.settings.whole_window:
            return None
        before = layout.at(self._ref, self.alleles.offset_bp) - 1
        return before if (before >= layout.starts[self._ref]).all() else None

    def _index(self, layout: TokenLayout, sequence: Ints) -> Ints:
        """Find the embedding that is compared, of each variant."""
        wanted = self.settings.embedding_idx
        if wanted is None:
            return layout.at(sequence, self.alleles.offset_bp)
        overlaps = self.model.overlaps
        limit = np.diff(layout.starts if overlaps else layout.starts_bp())[sequence]
        if (limit <= wanted).any() or wanted < 0:
            raise ConfigError(
                f"--embedding-idx is {wanted}, but the shortest sequence has {int(limit.min())} embeddings. "
                "Leave the flag out to compare the embedding that covers the variant."
            )
        return layout.starts[sequence] + wanted if overlaps else layout.at(sequence, np.full(len(sequence), wanted))
