"""The base classes of all embedders: from sequences to token embeddings, logits and losses.

``LoadedModel`` (in ``_loaded_model``) finds the checkpoint and loads its weights. ``Embedder`` tokenizes, batches, runs
the network and aligns. ``NetworkEmbedder`` is an embedder around a network of transformers' form. A family adds its
tokens and its network. A complete family, for a model that reads single nucleotides:

    class MyEmbedder(NetworkEmbedder):
        def _load(self) -> None:
            config = MyConfig(**read_json(self.folder / "config.json"))   # from _checkpoint_files
            self.model = self._build(lambda: MyForMaskedLM(config))       # random or loaded weights
            self._table = nucleotide_table({"A": 2, "C": 3, "G": 4, "T": 5}, unknown=1)   # from _tokens
            self.pad_id = 0                                               # padding is on the right and masked

        def _tokenize(self, sequences: list[str]) -> Tokenized:           # sequences are upper case and not empty
            stream = single_nucleotides(Nucleotides.of(sequences), self._table)
            return assemble(stream, self._window(512, suffix=(6,)))       # from _alignment

A family with keywords of its own passes the others on:

        def __init__(self, checkpoint: str | Path | None = None, *, kmer: int | None = None,
                     **options: Unpack[EmbedderOptions]) -> None:
            self.kmer = kmer                                              # before super(), which calls _load()
            super().__init__(checkpoint, **options)

>>> from bend_hf.embedders import OneHotEmbedder
>>> OneHotEmbedder()("ACGT").shape
(4, 5)
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, ClassVar, Final, cast

import numpy as np

from bend_hf.embedders._alignment import Tokenized, TokenMap, Window, output_tokens
from bend_hf.embedders._batching import BatchFunction, BatchRunner
from bend_hf.embedders._device import available_device, leave_out_planned_attention, set_tf32
from bend_hf.embedders._loaded_model import LoadedModel
from bend_hf.embedders._pipeline import Rows, Storage, StoredRows, Unit, UnitBuffers, ahead, stored_rows
from bend_hf.embedders._spec import EmbedderOptions as EmbedderOptions
from bend_hf.embedders._spec import ModelOutput
from bend_hf.embedders._spec import TokenEmbeddings as TokenEmbeddings
from bend_hf.embedders._tokens import checked_sequences, reverse_complement
from bend_hf.embedders._windows import Cut
from bend_hf.errors import ConfigError, ModelError
from bend_hf.types import Floats

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def token_losses(logits_BTV: Tensor, ids_BT: Tensor, *, competing: Sequence[int] | None, causal: bool) -> Tensor:
    """Compute the cross-entropy of each token, without masking it.

    Two equally likely tokens; the third token of the vocabulary does not compete:

    >>> import torch
    >>> token_losses(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]]), competing=[0, 1], causal=False)[0, :, 0].exp()
    tensor([2., 2., nan])

    Args:
        logits_BTV: Scores, float, shape (batch, tokens, vocabulary).
        ids_BT: Token ids, int64, shape (batch, tokens).
        competing: The token ids that the softmax runs over; None: all.
        causal: The scores of a token are those of the position before it; the first token has no scores.

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


_TOKENIZING: Final = threading.Lock()  # tokenizers of transformers keep settings while they work
# Embeddings of the sequences that are embedded together, in float32. On a GPU a group should have several full batches.
_GROUP_BYTES: Final = {"cpu": 1 << 28, "mps": 1 << 28, "cuda": 1 << 30}
_PROBED_BP: Final = 6000  # of a sequence whose tokens are counted


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Sequences that are embedded together: their tokens, which of them are returned, and where their rows go.

    Attributes:
        rows: The places of their rows; of each layer apart, if several layers are stored.
        complete: The units whose last rows are in this group, those of a unit of each layer; see ``UnitBuffers``.
    """

    tokenized: Tokenized
    outputs: TokenMap
    rows: Sequence[Rows]
    complete: Sequence[Sequence[Unit]] = ()

    def items(self) -> Iterator[TokenEmbeddings]:
        """Yield the embeddings of each sequence, after they have arrived on the host."""
        (rows,) = self.rows
        rows.wait()
        values = rows.array()
        for first, last in pairwise(self.outputs.starts.tolist()):
            yield TokenEmbeddings(values=values[first:last], embedding_bp=self.outputs.bp[first:last])


class Embedder(LoadedModel):
    """A loaded model that embeds sequences; ``LoadedModel`` describes the keywords of the constructor."""

    equal_lengths: bool = False  # True: only chunks of equal length share a batch, so that nothing is padded
    pooled: bool = False  # True: one embedding per sequence, for tasks with one label set per sequence
    tunable: ClassVar[bool] = True  # False: its network computes no gradients
    shardable: bool = True  # False: its weights cannot be sharded over processes in training
    has_tokens: ClassVar[bool] = True  # False: gives embeddings, but no tokens
    shares_prefixes: ClassVar[bool] = False  # True: has ``_losses_behind``
    is_repeatable: bool = True  # False: it gave other embeddings of the same sequences; see ``_probe``
    layers: tuple[int, ...] = ()  # of a view that returns several layers, one after the other; see ``layers``
    _state_widths: tuple[int, ...] = ()  # of the hidden states that ``_pick`` saw last
    head_keys: ClassVar[tuple[str, ...]] = ("lm_head.*", "cls.*")  # without these keys a checkpoint has no logits
    _runner: BatchRunner | None = None

    # What a family implements.

    @abstractmethod
    def _tokenize(self, sequences: list[str]) -> Tokenized:
        """Tokenize sequences, which are not empty and went through ``_normalize``."""

    @abstractmethod
    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        """Compute the hidden states of one batch.

        Args:
            ids_BT: Token ids, int64, on the model's device, padded on the right with ``self.pad_id``.
            mask_BT: 1 for tokens and 0 for padding, int64; None if nothing is padded.
            layer: As in the constructor.

        Returns:
            Shape (batch, tokens, width).
        """

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Compute the language-model scores of one batch, shape (batch, tokens, vocabulary)."""
        raise ModelError(f"{self.name} has no language-model head; logits and loss need one")

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Compute the hidden states of selected tokens.

        Override it if the network can leave out work for the other tokens.

        Args:
            ids_BT: As for ``_hidden``.
            mask_BT: As for ``_hidden``.
            layer: As for ``_hidden``.
            tokens_BQ: Which tokens of each chunk, int64, on the device, shape (batch, Q); None: all.

        Returns:
            Shape (batch, Q, width).
        """
        return _take(self._hidden(ids_BT, mask_BT, layer), tokens_BQ)

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """Compute the language-model scores of selected tokens, shape (batch, Q, vocabulary)."""
        return _take(self._logits(ids_BT, mask_BT), tokens_BQ)

    def _losses_behind(self, prefix_PF: Tensor, rest_NR: Tensor, prefix_of_N: Tensor) -> Tensor:
        """Compute the losses of tokens behind shared prefixes, each of which is computed once.

        Args:
            prefix_PF: Token ids of the prefixes, at least one token each, shape (P, F).
            rest_NR: Token ids of the sequences behind their prefixes, padded on the right, shape (N, R).
            prefix_of_N: Index of the prefix of each sequence, shape (N,).

        Returns:
            Float32, shape (N, R).
        """
        raise ModelError(f"{self.name} cannot continue a prefix; expected a family with shares_prefixes")

    def _loss_tokens(self) -> Sequence[int] | None:
        """Return the token ids that compete in the loss; None: the whole vocabulary. Other tokens have the loss nan."""
        return None

    def _normalize(self, sequence: str) -> str:
        """Prepare a sequence for the tokenizer: upper case, unless a family overrides it."""
        return sequence.upper()

    def _flip(self, x_LD: Floats) -> Floats:
        """Put the embeddings of a reverse complement in the order of the forward strand, shape (L, D)."""
        return x_LD[::-1]

    # What a user calls.

    def __call__(self, sequence: str, remove_special_tokens: bool = True, upsample_embeddings: bool = False) -> Floats:
        """Embed one sequence; see ``embed``."""
        return self.embed([sequence], remove_special_tokens, upsample_embeddings)[0]

    def embed(
        self,
        sequences: Sequence[str],
        remove_special_tokens: bool = True,
        upsample_embeddings: bool = False,
    ) -> list[Floats]:
        """Embed sequences.

        Args:
            sequences: Nucleotides as IUPAC codes in either case; a sequence must not be empty.
            remove_special_tokens: Leave out the embeddings of special tokens such as CLS and SEP. Otherwise each has
                its place among the other tokens, also between the chunks of a long sequence.
            upsample_embeddings: Return one embedding per nucleotide instead of one per token.

        Returns:
            One array per sequence, shape (tokens, D) or (nucleotides, D).
        """
        return list(self.iter_embed(sequences, remove_special_tokens, upsample_embeddings))

    def iter_embed(
        self,
        sequences: Iterable[str],
        remove_special_tokens: bool = True,
        upsample_embeddings: bool = False,
    ) -> Iterator[Floats]:
        """Embed sequences one after the other, in bounded memory; see ``embed``."""
        if self.return_logits or self.return_loss:
            yield from self._iter_scores(sequences, remove_special_tokens, upsample_embeddings)
            return
        if self.reverse_complement_average:
            if not upsample_embeddings or not remove_special_tokens:
                raise ConfigError(
                    "reverse_complement_average gives one embedding per nucleotide, because the tokens of the two "
                    "strands differ; use upsample_embeddings=True and remove_special_tokens=True"
                )
            yield from (both.values for both in self.iter_tokens(sequences))
            return
        for group in self._groups(sequences):
            for output in self._outputs(
                group, self._embed_batch, specials=not remove_special_tokens, per_nucleotide=upsample_embeddings
            ):
                yield output.upsampled() if upsample_embeddings else output.values

    def _iter_scores(
        self, sequences: Iterable[str], remove_special_tokens: bool, upsample_embeddings: bool
    ) -> Iterator[Floats]:
        """Yield scores, shape (1, tokens, vocabulary), or losses, (1, tokens), as BEND's embedders do."""
        self._need_head()
        if self.return_loss and not remove_special_tokens:
            raise ConfigError("return_loss gives the loss of nucleotides; use remove_special_tokens=True")
        if self.reverse_complement_average:
            raise ConfigError("reverse_complement_average averages embeddings, not scores; leave one of both out")
        function = self._loss_batch if self.return_loss else self._logits_batch
        for values in self._scores(sequences, function, upsample_embeddings, specials=not remove_special_tokens):
            yield (values[:, 0] if self.return_loss else values)[None]

    def _scores(
        self,
        sequences: Iterable[str],
        function: BatchFunction,
        per_nucleotide: bool,
        *,
        specials: bool = False,
    ) -> Iterator[Floats]:
        """Yield what a function of the language-model head gives for each sequence, shape (tokens, values)."""
        for group in self._groups(sequences):
            for output in self._outputs(group, function, specials=specials, per_nucleotide=per_nucleotide):
                yield output.upsampled() if per_nucleotide else output.values

    def embed_tokens(self, sequences: Sequence[str]) -> list[TokenEmbeddings]:
        """Return token embeddings and how many nucleotides each stands for."""
        return list(self.iter_tokens(sequences))

    def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        """Embed sequences one after the other, in bounded memory; see ``embed_tokens``."""
        if self.overlaps:
            yield from self._iter_overlapped(sequences)
            return
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
            for plus, minus in zip(forward, reverse, strict=True):
                x_LD = (plus.upsampled() + self._flipped(minus.upsampled())) * np.float32(0.5)
                yield TokenEmbeddings(values=x_LD, embedding_bp=np.ones(len(x_LD), dtype=np.int64))

    def logits(self, sequences: Sequence[str], upsample_embeddings: bool = False) -> list[Floats]:
        """Compute language-model scores, special tokens left out: shape (tokens or nucleotides, vocabulary) each.

        Raises:
            ModelError: The family or the checkpoint has no language-model head.
        """
        self._need_head()
        return list(self._scores(sequences, self._logits_batch, upsample_embeddings))

    def loss(self, sequences: Sequence[str], upsample_embeddings: bool = False) -> list[Floats]:
        """Compute the cross-entropy of each token, unmasked: shape (tokens or nucleotides,) each.

        A causal model predicts a token from those before it. The loss is nan for a token that does not compete (an
        unknown nucleotide), and for the first token of a causal model without a special token in front. Per
        nucleotide, the loss of a token is repeated.

        Raises:
            ModelError: The family or the checkpoint has no language-model head.
        """
        self._need_head()
        return [values[:, 0] for values in self._scores(sequences, self._loss_batch, upsample_embeddings)]

    @property
    def finite_remedy(self) -> str:
        """What to do if the model gives nan or infinity."""
        if self.dtype == "float32":
            return "check its weights"
        return f"{self.dtype} may be too narrow, compute with --model-dtype float32"

    def probe(self) -> Floats | None:
        """Embed the two sequences by which a model that runs a user's code is recognized; see ``_probe``.

        Returns:
            Shape (rows, D); None if the files of the model say everything about it.
        """
        if not self._runs_user_code:
            return None
        from bend_hf.embedders._probe import probe_sequences, summarize

        return summarize([tokens.values for tokens in self.embed_tokens(probe_sequences())])

    def tokenize(self, sequences: Sequence[str]) -> Tokenized:
        """Tokenize sequences into the inputs of the model, with their alignment, checked."""
        self.load()
        return self._tokenized([self._normalize(one) for one in checked_sequences(sequences)])

    @property
    def n_threads(self) -> int:
        """How many threads may compute with the model at the same time.

        Three on a GPU, which then works for one of them while the host tokenizes for another and compares or writes for
        the third. One on a CPU, which has no time to fill, and for a user's code, which may not allow it.
        """
        return 3 if self.runner().device.type == "cuda" and not self._runs_user_code else 1

    # Implementation.

    def _outputs(
        self, sequences: list[str], function: BatchFunction, *, specials: bool, per_nucleotide: bool
    ) -> Iterator[TokenEmbeddings]:
        tokenized = self._tokenized(sequences)
        outputs = output_tokens(tokenized, specials=specials, per_nucleotide=per_nucleotide)
        rows = (Rows(n_rows=len(outputs.token)),)
        return self._computed(_Group(tokenized=tokenized, outputs=outputs, rows=rows), function).items()

    @property
    def overlaps(self) -> bool:
        """Whether the stages of embedding overlap: not for two strands, nor for a class that embeds in its own way."""
        kind = type(self)
        own = kind._outputs is not Embedder._outputs or kind.iter_tokens is not Embedder.iter_tokens
        return not own and not self.reverse_complement_average

    def _iter_overlapped(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        def prepared() -> Iterator[_Group]:
            for group in self._groups(sequences):
                tokenized = self._tokenized(group)
                outputs = output_tokens(tokenized, specials=False, per_nucleotide=True)
                yield _Group(tokenized=tokenized, outputs=outputs, rows=(Rows(n_rows=len(outputs.token)),))

        with closing(self._overlapped(prepared())) as groups:
            for group in groups:
                yield from group.items()

    def _overlapped(self, prepared: Iterator[_Group], *, shrinks: bool = False) -> Generator[_Group, None, None]:
        """Compute groups while the next ones are prepared and the last one is taken; see ``_pipeline``.

        A single group is computed here: nothing can overlap with it.
        """
        on_gpu = self.runner().device.type == "cuda"  # the first call moves the model there, in this thread
        head = list(islice(prepared, 2))
        if len(head) < 2:
            for group in head:
                yield self._computed(group, self._embed_batch, shrinks=shrinks)
            return
        stop = threading.Event()

        def computed() -> Iterator[_Group]:
            with closing(ahead(chain(head, prepared), n_ahead=2)) as waiting:
                for group in waiting:
                    yield self._computed(group, self._embed_batch, stop=stop, shrinks=shrinks)

        with closing(ahead(computed(), stop=stop, keeps_thread=on_gpu)) as groups:
            yield from groups

    def _computed(
        self,
        group: _Group,
        function: BatchFunction,
        *,
        stop: threading.Event | None = None,
        shrinks: bool = False,
    ) -> _Group:
        """Run the device over a group, and start to copy its rows to the host."""
        batches = self.runner().run(group.tokenized, group.outputs.token, function, stop=stop, shrinks=shrinks)
        for values, slots in batches:
            parts = (values,) if len(group.rows) == 1 else values.chunk(len(group.rows), dim=-1)
            for rows, part in zip(group.rows, parts, strict=True):
                rows.place(part, slots)
        for rows in group.rows:
            rows.copy()
        return group

    def iter_stored(
        self,
        units: Iterable[Sequence[str]],
        dtype: torch.dtype,
        *,
        rows_per_bp: float = 1.0,
        pool_bp: int | None = None,
        on_device: bool = False,
    ) -> Generator[StoredRows, None, None]:
        """Embed units of sequences, the rows of each in one buffer of a dtype; see ``_pipeline``.

        Args:
            units: Sequences that are stored together; read in a thread of its own.
            dtype: In which the rows are stored.
            rows_per_bp: Estimated stored rows per nucleotide, for the buffers.
            pool_bp: Average the rows, rounded to ``dtype``, over windows of this many nucleotides; means are float32.
            on_device: Leave the rows on the device of the model, and embed each unit apart from the others.
        """
        storage = Storage(dtype=dtype, rows_per_bp=rows_per_bp, pool_bp=pool_bp, on_device=on_device)
        with closing(self.iter_stored_layers(units, storage)) as stored:
            for unit in stored:
                (rows,) = unit
                yield rows

    def iter_stored_layers(
        self, units: Iterable[Sequence[str]], storage: Storage
    ) -> Generator[tuple[StoredRows, ...], None, None]:
        """Embed units of sequences as ``iter_stored`` does, the rows of each layer of a view in a buffer of its own."""
        import torch

        device = self.runner().device
        buffers = [
            UnitBuffers(
                width=self.width,
                dtype=storage.dtype if storage.pool_bp is None else torch.float32,
                rows_per_bp=storage.rows_per_bp,
                pinned=device.type == "cuda",
                device=device if storage.on_device else None,
            )
            for _ in range(max(1, len(self.layers)))
        ]

        with closing(self._overlapped(self._prepared(units, buffers, storage), shrinks=True)) as groups:
            for group in groups:
                for rows in group.rows:
                    rows.wait()
                for complete in group.complete:
                    yield tuple(stored_rows(unit) for unit in complete)

    def _prepared(
        self, units: Iterable[Sequence[str]], buffers: Sequence[UnitBuffers], storage: Storage
    ) -> Iterator[_Group]:
        """Tokenize units of sequences in groups, and find the places of their rows."""

        def announced(unit: Sequence[str]) -> Sequence[str]:
            for each in buffers:
                each.begin(unit)
            return unit

        streams = map(announced, units) if storage.on_device else [chain.from_iterable(map(announced, units))]
        for group in chain.from_iterable(map(self._groups, streams)):
            tokenized = self._tokenized(group)
            outputs = output_tokens(tokenized, specials=False, per_nucleotide=True)
            placed = [each.of_group(outputs.starts, outputs.bp, storage) for each in buffers]
            yield _Group(
                tokenized=tokenized,
                outputs=outputs,
                rows=[rows for rows, _ in placed],
                complete=list(zip(*(complete for _, complete in placed), strict=True)),
            )

    def _tokenized(self, sequences: list[str]) -> Tokenized:
        with _TOKENIZING:
            tokenized = self._tokenize(sequences)
        tokenized.check([len(sequence) for sequence in sequences], name=self.name)
        return tokenized

    def _groups(self, sequences: Iterable[str]) -> Iterator[list[str]]:
        """Group sequences so that the embeddings of a group fit into memory."""
        n_batches = 1 if self.layers else 8  # several layers are held for one batch only
        runner = self.runner()
        limit_rows = max(_GROUP_BYTES[runner.device.type] // (4 * self.row_width), n_batches * runner.default_tokens)
        limit_bp = limit_rows * (self._bp_per_token if runner.device.type == "cuda" else 1)
        group: list[str] = []
        group_bp = 0
        for sequence in checked_sequences(sequences):
            if group and group_bp + len(sequence) > limit_bp:
                yield group
                group, group_bp = [], 0
            group.append(self._normalize(sequence))
            group_bp += len(sequence)
        if group:
            yield group

    @cached_property
    def _bp_per_token(self) -> int:
        """Nucleotides of a token of random sequence, rounded; 1 for a class that embeds in its own way."""
        if not self.overlaps:
            return 1
        letters = np.random.default_rng(0).choice(np.frombuffer(b"ACGT", np.uint8), _PROBED_BP)
        n_tokens = len(self._tokenized([self._normalize(letters.tobytes().decode("ascii"))]).ids)
        return max(1, round(_PROBED_BP / n_tokens))

    def _embed_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self._hidden(ids_BT, mask_BT, self.layer)

    @property
    def row_width(self) -> int:
        """Numbers per token: the width D, or that of all layers of a view of several."""
        return self.width * max(1, len(self.layers))

    def _flipped(self, x_LD: Floats) -> Floats:
        """Flip each layer; see ``_flip``."""
        n_layers = max(1, len(self.layers))
        parts = [self._flip(part) for part in np.split(x_LD, n_layers, axis=1)]
        return parts[0] if n_layers == 1 else np.concatenate(parts, axis=1)

    def _logits_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        return self._logits(ids_BT, mask_BT)

    def _loss_batch(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        logits_BTV = self._logits(ids_BT, mask_BT)
        return token_losses(logits_BTV, ids_BT, competing=self._loss_tokens(), causal=self.direction == "causal")

    def runner(self) -> BatchRunner:
        """Return the runner of batches. The first call moves the model to its device."""
        if self._runner is None:
            self.load()
            device = available_device(self._device_name)
            if self.model is not None:
                self.model = self._cast(self.model.requires_grad_(False)).eval().to(device)
                if self.compile:
                    from bend_hf.embedders._compile import compile_network

                    compile_network(self.model, device)
            self._runner = BatchRunner(
                device=device,
                pad_id=self.pad_id,
                batch_tokens=self.batch_tokens,
                equal_lengths=self.equal_lengths,
                compiled=self.compile and self.model is not None,
                width=self.network_width,
            )
            if device.type == "cuda":
                leave_out_planned_attention()
        if self._runner.device.type == "cuda":
            set_tf32(self.tf32)
        return self._runner

    def _cast(self, model: nn.Module) -> nn.Module:
        """Cast the model to ``self.dtype``. Override it if parts of the network must stay float32."""
        import torch

        return model.to(getattr(torch, self.dtype))

    def _need_head(self) -> None:
        self.load()
        missing = [key for key in self.lacking if any(fnmatchcase(key, pattern) for pattern in self.head_keys)]
        if missing:
            raise ModelError(
                f"the checkpoint of {self.name} lacks the language-model head ({missing[0]} ...); logits and loss "
                f"need a checkpoint that was saved with its head"
            )

    # For families.

    def _window(
        self,
        context_tokens: int | None,
        *,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        cut: Cut = "each-chunk",
    ) -> Window:
        """Return how to cut long sequences. The user's overlap replaces ``cut``."""
        if self._runner is not None:
            self._runner.most_tokens = context_tokens
        return Window(
            context_tokens=context_tokens,
            prefix=tuple(prefix),
            suffix=tuple(suffix),
            cut="each-chunk" if self.overlap_tokens else cut,
            overlap_tokens=self.overlap_tokens,
            causal=self.direction == "causal",
        )

    def _pick(self, output: ModelOutput, layer: int) -> Tensor:
        """Pick the hidden state of a layer. For a layer other than -1 the model must return all hidden states.

        A view of several layers gets them all, one after the other along the width.
        """
        if self.layers:
            import torch

            return torch.cat([self._pick_one(output, one) for one in self.layers], dim=-1)
        return self._pick_one(output, layer)

    def _pick_one(self, output: ModelOutput, layer: int) -> Tensor:
        if layer == -1:
            return output.last_hidden_state
        states = output.hidden_states
        if states is None:
            raise ModelError(f"{self.name} returned no hidden states, but layer is {layer}; use layer=-1")
        self._state_widths = (*(state.shape[-1] for state in states[:-1]), output.last_hidden_state.shape[-1])
        if not -len(states) <= layer < len(states):
            raise ConfigError(self._no_layer(len(states), layer))
        return output.last_hidden_state if layer == len(states) - 1 else states[layer]


def _take(values_BTK: Tensor, tokens_BQ: Tensor | None) -> Tensor:
    if tokens_BQ is None:
        return values_BTK
    return values_BTK.gather(1, tokens_BQ[..., None].expand(-1, -1, values_BTK.shape[2]))


class NetworkEmbedder(Embedder):
    """An embedder around a network of transformers' form; a family adds ``_load`` and ``_tokenize``.

    ``base_model`` returns hidden states, the network itself returns language-model scores. ``compile=True`` compiles
    both.
    """

    def _network(self) -> PreTrainedModel:
        """Return the network, encoder and head."""
        if self.model is None:
            raise ModelError(f"{self.name} has no network; its _load() must set self.model")
        return cast("PreTrainedModel", self.model)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        encoder = self._network().base_model
        return self._pick(encoder(ids_BT, attention_mask=mask_BT, output_hidden_states=layer != -1), layer)

    def _hidden_at(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None) -> Tensor:
        """Leave out what the last layer computes for other tokens, if ``selected_tokens`` knows the network."""
        found = None
        if type(self)._hidden is NetworkEmbedder._hidden and not self.compile:
            from bend_hf.embedders.networks.selected_tokens import hidden_at

            found = hidden_at(self._network().base_model, ids_BT, mask_BT, layer, tokens_BQ)
        return super()._hidden_at(ids_BT, mask_BT, layer, tokens_BQ) if found is None else found

    def _logits_at(self, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
        """Compute the scores of selected tokens, with the head at these tokens only."""
        found = None
        if type(self)._logits is NetworkEmbedder._logits and not self.compile:
            from bend_hf.embedders.networks.selected_tokens import logits_at

            found = logits_at(self._network(), ids_BT, mask_BT, tokens_BQ)
        return super()._logits_at(ids_BT, mask_BT, tokens_BQ) if found is None else found

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        scores_BTV: Tensor = self._network()(ids_BT, attention_mask=mask_BT).logits
        return scores_BTV
