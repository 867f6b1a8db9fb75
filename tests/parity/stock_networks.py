"""Random checkpoints of networks that transformers implements, and its own hidden states and scores for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.types import Floats

SEQUENCES = ("ACGTTGACGATTACGTGGA", "A", "ACGTNNNNNNNNNNNNACGNT", "N" * 15, "GATTACAGATTACA")
ATOL = 1e-5


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What transformers gives for the tokens of one sequence.

    Attributes:
        layers: Hidden states, the embeddings first, shape (T, D) each.
        scores: Language-model scores, shape (T, vocabulary).
    """

    layers: tuple[Floats, ...]
    scores: Floats


def random_checkpoint(key: str, folder: Path, **changes: Any) -> Path:
    """Write the tiny checkpoint of a model, with weights that transformers draws and saves.

    Every weight is drawn, those of norms and biases too, so that a forgotten one shows.
    """
    import transformers

    spec = MODELS.get(key)
    assert spec.tiny is not None
    spec.tiny().write(folder)
    fields = json.loads((folder / "config.json").read_text()) | changes
    config = transformers.AutoConfig.for_model(**fields)
    maker = transformers.AutoModelForMaskedLM if spec.direction == "masked" else transformers.AutoModelForCausalLM
    torch.manual_seed(1)
    network = maker.from_config(config, dtype=torch.float32)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.ndim == 1) * 0.5, std=0.3)
    network.save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"architectures": saved["architectures"]}))
    return folder


def outputs_of(folder: Path, ids: NDArray[np.integer]) -> Outputs:
    """Run the network as transformers loads it."""
    import transformers

    fields = json.loads((folder / "config.json").read_text())
    maker = getattr(transformers, fields["architectures"][0])
    network = maker.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        output = network(torch.from_numpy(ids)[None].long(), output_hidden_states=True)
        last = network.base_model(torch.from_numpy(ids)[None].long()).last_hidden_state
    states = (*output.hidden_states[:-1], last)
    return Outputs(layers=tuple(one[0].numpy() for one in states), scores=output.logits[0].numpy())


def check_all(key: str, folder: Path) -> Embedder:
    """Compare every layer, the scores and the losses of a checkpoint with those of transformers."""
    embedder = load_embedder(key, checkpoint=folder, device="cpu")
    for sequence in SEQUENCES:
        tokens = embedder.tokenize([sequence])
        assert len(tokens.chunk_starts) == 2, f"{sequence} does not fit the context"
        expected = outputs_of(folder, tokens.ids)
        content = tokens.embedding_token
        for layer, states in enumerate(expected.layers):
            rows = load_embedder(key, checkpoint=folder, layer=layer, device="cpu")(sequence)
            np.testing.assert_allclose(rows, states[content], atol=ATOL, rtol=1e-5, err_msg=f"{sequence} layer {layer}")
        rows = embedder(sequence, upsample_embeddings=True)
        repeated = np.repeat(expected.layers[-1][content], tokens.embedding_bp, axis=0)
        np.testing.assert_allclose(rows, repeated, atol=ATOL, rtol=1e-5)
        (scores,), (loss,) = embedder.logits([sequence]), embedder.loss([sequence])
        np.testing.assert_allclose(scores, expected.scores[content], atol=5e-5, rtol=1e-5)
        np.testing.assert_allclose(loss, losses_of(embedder, expected.scores, tokens.ids, content), atol=1e-4)
    together = embedder.embed(list(SEQUENCES))
    for sequence, rows in zip(SEQUENCES, together, strict=True):
        np.testing.assert_allclose(rows, embedder(sequence), atol=1e-5, rtol=1e-5)
    return embedder


def losses_of(embedder: Embedder, scores: Floats, ids: NDArray[np.integer], content: NDArray[np.int64]) -> Floats:
    """Compute the cross-entropy of each token over the tokens that stand for known nucleotides, in float64."""
    competing = list(embedder._loss_tokens() or range(scores.shape[1]))
    read = content - 1 if embedder.direction == "causal" else content
    chosen = scores[np.maximum(read, 0)].astype(np.float64)
    log_sum = np.log(np.exp(chosen[:, competing]).sum(axis=1))
    losses = log_sum - chosen[np.arange(len(content)), ids[content]]
    losses[~np.isin(ids[content], competing) | (read < 0)] = np.nan
    return losses
