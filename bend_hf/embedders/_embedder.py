"""What every embedder does alike: batches, devices, rows, nucleotides; a family adds its tokens and its network.

A whole family, for a model that reads single letters (``read_json`` is in ``_checkpoint_files``, ``Letters`` and
``nucleotide_table`` in ``_streams``, ``assemble`` in ``_alignment``, ``EmbedderOptions`` in ``_options``):

    class NucleotideEmbedder(Embedder):
        def _load(self) -> None:                                      # sets self.model
            config = LetterConfig(**read_json(self.folder / "config.json"))
            self.model = self._build(lambda: LetterModel(config))     # random or read, as asked for
            self._table = nucleotide_table({"A": 2, "C": 3, "G": 4, "T": 5}, unknown=1)
            self.pad_id = 0                                           # right padding, masked

        def _tokenize(self, sequences: list[str]) -> Tokenized:       # upper case, none empty
            return assemble(single_nucleotides(Nucleotides.of(sequences), self._table), self._window(512, suffix=(6,)))

        def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
            return self._pick(self.model(ids_BT, mask_BT, output_hidden_states=layer != -1), layer)

A family with keywords of its own passes the others on, so that a wrong one is a TypeError:

        def __init__(self, checkpoint: str | Path | None = None, *, kmer: int | None = None,
                     **options: Unpack[EmbedderOptions]) -> None:
            self.kmer = kmer                                          # before super(), which calls _load()
            super().__init__(checkpoint, **options)

>>> from bend_hf.embedders import OneHotEmbedder
>>> OneHotEmbedder()("ACGT").shape
(4, 5)

Embedders over one network of transformers' form: ``base_model`` gives hidden states, the whole gives scores.

All of the families that have a network of their own stand on it; each says how its network is built and what it reads.
``compile=True`` compiles both, as either may be the one that is called.

>>> issubclass(NetworkEmbedder, Embedder)
True

The loss of each token under a language model's scores.

>>> import torch
>>> ids = torch.tensor([[0, 1, 2]])
>>> token_losses(torch.zeros(1, 3, 4), ids, competing=[0, 1], causal=False)[0, :, 0].exp()
tensor([2., 2., nan])
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final, cast

import numpy as np

from bend_hf.embedders._alignment import Tokenized, Window, output_tokens
from bend_hf.embedders._batching import BatchFunction, BatchRunner
from bend_hf.embedders._loaded_model import LoadedModel
from bend_hf.embedders._spec import EmbedderOptions as EmbedderOptions
from bend_hf.embedders._spec import ModelOutput
from bend_hf.embedders._spec import TokenEmbeddings as TokenEmbeddings
from bend_hf.embedders._tokens import readable, reverse_complement
from bend_hf.embedders._windows import Cut
from bend_hf.errors import ConfigError, ModelError
from bend_hf.types import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def token_losses(logits_BTV: Tensor, ids_BT: Tensor, *, competing: Sequence[int] | None, causal: bool) -> Tensor:
    """Cross-entropy of each token as it stands.

    Args:
        logits_BTV: Scores, float, shape (batch, tokens, vocabulary).
        ids_BT: Token ids, int64, shape (batch, tokens).
        competing: The token ids among which probability is shared out; None: all.
        causal: A token's scores stand one place before it; the first token has none.

    Returns:
        Shape (batch, tokens, 1), float32; nan for a token that does not compete or has no scores.
    """
    import torch

    competes_V = torch.ones(logits_BTV.shape[-1], dtype=torch.bool, device=logits_BTV.device)
    if competing is not None:
        competes_V[:] = False
        competes_V[list(competing)] = True
    log_BTV = logits_BTV.float().masked_fill(~competes_V, -torch.inf).log_softmax(-1)
    scored_BT = competes_V[ids_BT]
    if causal:
        log_BTV = log_BTV.roll(1, dims=1)
        scored_BT[:, 0] = False
    loss_BT1 = -log_BTV.gather(-1, ids_BT[..., None])
    return loss_BT1.masked_fill(~scored_BT[..., None], torch.nan)


_GROUP_BYTES: Final = 1 << 28  # rows of sequences that are embedded together


class Embedder(LoadedModel):
    """Sequences in, rows out; the constructor's keywords are those of ``LoadedModel``."""

    equal_lengths: bool = False  # True: only pieces of one length share a batch, nothing is padded
    shardable: bool = True  # False: its weights cannot be spread over processes while it is trained
    head_keys: ClassVar[tuple[str, ...]] = ("lm_head.*", "cls.*")  # a checkpoint that lacks them has no logits
    _runner: BatchRunner | None = None

    # What a family writes.

    @abstractmethod
    def _tokenize(self, sequences: list[str]) -> Tokenized:
        """Tokens and rows of sequences, which are not empty and passed through ``_normalise``."""

    @abstractmethod
    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        """Hidden states of one batch.

        Args:
            ids_BT: Token ids, int64, on the model's device, padded on the right with ``self.pad_id``.
            mask_BT: 1 for tokens and 0 for padding, int64; None where nothing is padded.
            layer: As in the constructor.

        Returns:
            Shape (batch, tokens, width).
        """

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Language-model scores of one batch, shape (batch, tokens, vocabulary)."""
        raise ModelError(f"{self.name} has no language-model head; logits and loss need one")

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Hidden states of some tokens of each sequence; a family whose network can leave the others out does so.

        Args:
            ids_BT: As for ``_hidden``.
            mask_BT: The same.
            layer: The same.
            tokens_BQ: Which tokens, int64, on the device, shape (batch, Q); None: all.

        Returns:
            Shape (batch, Q, width).
        """
        return _take(self._hidden(ids_BT, mask_BT, layer), tokens_BQ)

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """Language-model scores of some tokens, shape (batch, Q, vocabulary)."""
        return _take(self._logits(ids_BT, mask_BT), tokens_BQ)

    def _loss_tokens(self) -> Sequence[int] | None:
        """Which token ids compete in the loss; None: the whole vocabulary. A token outside has loss nan."""
        return None

    def _normalise(self, sequence: str) -> str:
        """A sequence as the tokenizer wants it: upper case, unless a family says otherwise."""
        return sequence.upper()

    def _flip(self, rows: Floats) -> Floats:
        """Rows of a reverse complement, put in the order of the forward strand, shape (L, D)."""
        return rows[::-1]

    # What users call.

    def __call__(self, sequence: str, remove_special_tokens: bool = True, upsample_embeddings: bool = False) -> Floats:
        """Embed one sequence; see ``embed``. Returns shape (rows, D)."""
        return self.embed([sequence], remove_special_tokens, upsample_embeddings)[0]

    def embed(
        self,
        sequences: Sequence[str],
        remove_special_tokens: bool = True,
        upsample_embeddings: bool = False,
    ) -> list[Floats]:
        """Embed sequences.

        Args:
            sequences: Nucleotides of the IUPAC code in either case, none empty.
            remove_special_tokens: Leave out the rows of CLS, SEP and their like; otherwise each stands where its
                token does, those between the pieces of a long sequence included.
            upsample_embeddings: One row per nucleotide instead of one per token.

        Returns:
            One array for each sequence, shape (rows, D).
        """
        return list(self.iter_embed(sequences, remove_special_tokens, upsample_embeddings))

    def iter_embed(
        self,
        sequences: Iterable[str],
        remove_special_tokens: bool = True,
        upsample_embeddings: bool = False,
    ) -> Iterator[Floats]:
        """As ``embed``, but one after the other and in bounded memory."""
        if self.reverse_complement_average:
            if not upsample_embeddings or not remove_special_tokens:
                raise ConfigError(
                    "reverse_complement_average gives one row per nucleotide, as the tokens of the two strands "
                    "differ; use upsample_embeddings=True and remove_special_tokens=True"
                )
            yield from (both.values for both in self.iter_tokens(sequences))
            return
        for group in self._groups(sequences):
            for rows in self._outputs(
                group, self._embed_batch, specials=not remove_special_tokens, per_nucleotide=upsample_embeddings
            ):
                yield rows.upsampled() if upsample_embeddings else rows.values

    def embed_tokens(self, sequences: Sequence[str]) -> list[TokenEmbeddings]:
        """Rows of token embeddings and the nucleotides of each; what ``upsample_embeddings`` repeats."""
        return list(self.iter_tokens(sequences))

    def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        """As ``embed_tokens``, but one after the other and in bounded memory."""
        for group in self._groups(sequences):
            forward = self._outputs(group, self._embed_batch, specials=False, per_nucleotide=True)
            if not self.reverse_complement_average:
                yield from forward
                continue
            reverse = self._outputs(
                [reverse_complement(sequence) for sequence in group],
                self._embed_batch,
                specials=False,
                per_nucleotide=True,
            )
            for ahead, back in zip(forward, reverse, strict=True):
                rows = (ahead.upsampled() + self._flip(back.upsampled())) * np.float32(0.5)
                yield TokenEmbeddings(values=rows, embedding_bp=np.ones(len(rows), dtype=np.int64))

    def logits(self, sequences: Sequence[str], upsample_embeddings: bool = False) -> list[Floats]:
        """Language-model scores without special tokens: shape (tokens or nucleotides, vocabulary) each.

        Raises:
            ModelError: The family or the checkpoint has no language-model head.
        """
        self._need_head()
        return [
            rows.upsampled() if upsample_embeddings else rows.values
            for group in self._groups(sequences)
            for rows in self._outputs(group, self._logits_batch, specials=False, per_nucleotide=upsample_embeddings)
        ]

    def loss(self, sequences: Sequence[str], upsample_embeddings: bool = False) -> list[Floats]:
        """Cross-entropy of each token as it stands, unmasked: shape (tokens or nucleotides,) each.

        A causal model is asked one token earlier. nan for a token that does not compete (an unknown letter) and
        for a causal model's first token where nothing stands in front. Per nucleotide, a token's loss is repeated.

        Raises:
            ModelError: The family or the checkpoint has no language-model head.
        """
        self._need_head()
        return [
            (rows.upsampled() if upsample_embeddings else rows.values)[:, 0]
            for group in self._groups(sequences)
            for rows in self._outputs(group, self._loss_batch, specials=False, per_nucleotide=upsample_embeddings)
        ]

    def tokenize(self, sequences: Sequence[str]) -> Tokenized:
        """The model inputs of sequences and their account, checked: what ``embed`` runs on."""
        return self._tokenized([self._normalise(one) for one in readable(sequences)])

    # How it is done.

    def _outputs(
        self, sequences: list[str], function: BatchFunction, *, specials: bool, per_nucleotide: bool
    ) -> Iterator[TokenEmbeddings]:
        tokenized = self._tokenized(sequences)
        rows = output_tokens(tokenized, specials=specials, per_nucleotide=per_nucleotide)
        wanted = np.zeros(len(tokenized.ids), dtype=np.bool_)
        wanted[rows.token] = True
        values = self.runner().run(tokenized, wanted, function)
        if len(rows.token) != len(values) or (np.diff(rows.token) < 1).any():  # repeated or out of order
            values = values[(np.cumsum(wanted) - 1)[rows.token]]
        for first, last in pairwise(rows.starts.tolist()):
            yield TokenEmbeddings(values=values[first:last], embedding_bp=rows.bp[first:last])

    def _tokenized(self, sequences: list[str]) -> Tokenized:
        tokenized = self._tokenize(sequences)
        tokenized.check([len(sequence) for sequence in sequences], name=self.name)
        return tokenized

    def _groups(self, sequences: Iterable[str]) -> Iterator[list[str]]:
        """Sequences in groups whose rows fit into memory, upper-cased."""
        limit_bp = max(_GROUP_BYTES // (4 * self.width), 8 * self.runner().usual_tokens)
        group: list[str] = []
        group_bp = 0
        for sequence in readable(sequences):
            if group and group_bp + len(sequence) > limit_bp:
                yield group
                group, group_bp = [], 0
            group.append(self._normalise(sequence))
            group_bp += len(sequence)
        if group:
            yield group

    def _embed_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self._hidden(ids_BT, mask_BT, self.layer)

    def _logits_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self._logits(ids_BT, mask_BT)

    def _loss_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        logits_BTV = self._logits(ids_BT, mask_BT)
        return token_losses(logits_BTV, ids_BT, competing=self._loss_tokens(), causal=self.direction == "causal")

    def runner(self) -> BatchRunner:
        """The runner, with the model on its device; chosen now, at first use."""
        if self._runner is None:
            import torch

            device = torch.device(self._device_name or best_device())
            if not {"cuda": torch.cuda, "mps": torch.backends.mps, "cpu": torch.cpu}[device.type].is_available():
                raise ConfigError(f"device {str(device)!r} is not to be had here; expected {best_device()!r}")
            if self.model is not None:
                self.model = self._cast(self.model.requires_grad_(False)).eval().to(device)
                if self.compile:
                    self.model.compile()
                    base = getattr(self.model, "base_model", self.model)
                    if base is not self.model:
                        base.compile()
            self._runner = BatchRunner(
                device=device,
                pad_id=self.pad_id,
                batch_tokens=self.batch_tokens,
                equal_lengths=self.equal_lengths,
            )
        return self._runner

    def _cast(self, model: nn.Module) -> nn.Module:
        """The model in ``self.dtype``; a family whose parts must stay float32 says so here."""
        import torch

        return model.to(getattr(torch, self.dtype))

    def _need_head(self) -> None:
        lost = [key for key in self.lacking if any(fnmatchcase(key, pattern) for pattern in self.head_keys)]
        if lost:
            raise ModelError(
                f"the checkpoint of {self.name} lacks its language-model head ({lost[0]} ...); logits and loss "
                f"need a checkpoint that was saved with it"
            )

    # What families may use.

    def _window(
        self,
        context_tokens: int | None,
        *,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        cut: Cut = "each-chunk",
    ) -> Window:
        """How to cut long sequences, with the user's overlap. ``cut`` is what BEND does without one."""
        return Window(
            context_tokens=context_tokens,
            prefix=tuple(prefix),
            suffix=tuple(suffix),
            cut="each-chunk" if self.overlap_tokens else cut,
            overlap_tokens=self.overlap_tokens,
            causal=self.direction == "causal",
        )

    def _pick(self, output: ModelOutput, layer: int) -> Tensor:
        """The hidden state that ``layer`` asks for; ask the model for all of them where it is not -1."""
        if layer == -1:
            return output.last_hidden_state
        states = output.hidden_states
        if states is None:
            raise ModelError(f"{self.name} gave no hidden states for layer {layer}; only the last layer (-1) is there")
        if not -len(states) <= layer < len(states):
            raise ConfigError(
                f"{self.name} has no layer {layer}; expected {-len(states)} to {len(states) - 1} (0 are the embeddings)"
            )
        return output.last_hidden_state if layer == len(states) - 1 else states[layer]


def _take(values_BTK: Tensor, tokens_BQ: Tensor | None) -> Tensor:
    if tokens_BQ is None:
        return values_BTK
    return values_BTK.gather(1, tokens_BQ[..., None].expand(-1, -1, values_BTK.shape[2]))


def best_device() -> str:
    """``cuda``, ``mps`` or ``cpu``: the best there is."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class NetworkEmbedder(Embedder):
    """A family adds ``_load`` and ``_tokenize``."""

    def _network(self) -> PreTrainedModel:
        """Encoder and head."""
        if self.model is None:
            raise ModelError(f"{self.name} has no network; its _load() should set one")
        return cast("PreTrainedModel", self.model)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        encoder = self._network().base_model
        return self._pick(encoder(ids_BT, attention_mask=mask_BT, output_hidden_states=layer != -1), layer)

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Without what the last layer computes for other tokens, where the network is known well enough."""
        found = None
        if type(self)._hidden is NetworkEmbedder._hidden and not self.compile:
            from bend_hf.embedders.networks.selected_tokens import hidden_at

            found = hidden_at(self._network().base_model, ids_BT, mask_BT, layer, tokens_BQ)
        return super()._hidden_at(ids_BT, mask_BT, layer, tokens_BQ) if found is None else found

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """The same, and the head at those tokens alone."""
        found = None
        if type(self)._logits is NetworkEmbedder._logits and not self.compile:
            from bend_hf.embedders.networks.selected_tokens import logits_at

            found = logits_at(self._network(), ids_BT, mask_BT, tokens_BQ)
        return super()._logits_at(ids_BT, mask_BT, tokens_BQ) if found is None else found

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        scores_BTV: Tensor = self._network()(ids_BT, attention_mask=mask_BT).logits
        return scores_BTV
