"""The sentences that describe how tokens were aligned with nucleotides."""

from __future__ import annotations

import re
from pathlib import Path

from bend_hf.config import RunConfig
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import find_source
from bend_hf.embedders import OneHotEmbedder, load_embedder
from bend_hf.embedders.alignment_summary import alignment_of, some_sequences
from bend_hf.embedders.user_model import UserEmbedder
from bend_hf.tasks import TASKS
from tests.fake_checkpoints import TINY_CONTEXT_TOKENS, make_tiny
from tests.tiny import write_data


def fake(key: str, folder: Path, **options: object) -> dict[str, object]:
    checkpoint = make_tiny(key, folder / key)
    embedder = load_embedder(key, checkpoint=checkpoint, random_init=True, **options)  # type: ignore[arg-type]
    return dict(alignment_of(embedder, ["ACGT" * 40, "ACGTACGTGA"]))


def test_nucleotides_are_one_embedding_per_nucleotide_and_whole() -> None:
    assert alignment_of(OneHotEmbedder(), ["ACGT" * 1000, "A"]) == {
        "tokens": "single nucleotides",
        "rows": "one embedding per nucleotide",
        "inputs": "each sequence in one input of up to 4,000 tokens",
    }


def test_overlapping_tokens_are_one_embedding_per_nucleotide_in_chunks(tmp_path: Path) -> None:
    said = fake("dnabert6", tmp_path, protocol="bend-hf-1")
    assert said["tokens"] == "overlapping 6-mers"
    assert re.fullmatch(
        r"one embedding per nucleotide, except \d+\.\d% of the embeddings, which stand for up to [34]",
        str(said["rows"]),
    )
    assert said["inputs"] == f"long sequences in chunks of at most {TINY_CONTEXT_TOKENS} tokens, without overlap"
    assert said["special_tokens"] == "2 per input; they give no embedding"


def test_specials_of_the_published_protocol_stand_at_the_ends_alone(tmp_path: Path) -> None:
    assert fake("dnabert6", tmp_path)["special_tokens"] == "0 to 2 per input; they give no embedding"


def test_tokens_that_stand_for_several_nucleotides_are_counted(tmp_path: Path) -> None:
    said = fake("dnabert2", tmp_path)
    assert said["rows"] == "one embedding per token of 1 to 8 nucleotides, repeated for each nucleotide"
    shares = said["rows_per_nucleotide"]
    assert isinstance(shares, float)
    assert 0.125 <= shares < 0.5


def test_overlap_and_strands_are_described(tmp_path: Path) -> None:
    said = fake("dnabert6", tmp_path, overlap_tokens=4, reverse_complement_average=True)
    assert said["inputs"] == f"long sequences in chunks of at most {TINY_CONTEXT_TOKENS} tokens, sharing 4 tokens"
    assert said["strands"] == "the embedding of each nucleotide is the mean over both strands"


def test_a_model_of_a_user_has_embeddings_alone() -> None:
    said = alignment_of(UserEmbedder(lambda sequences: [[[0.0]] * len(one) for one in sequences], name="mine"), ["ACG"])
    assert said["rows"] == "one embedding per nucleotide, checked"


def test_a_model_of_a_user_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def embed(sequences):\n    return [[[0.0]] * len(one) for one in sequences]\n")
    description = load_embedder(str(path)).description
    assert (description["model"], description["family"]) == ("mine", "own")


def test_sequences_are_drawn_over_the_whole_split(tmp_path: Path) -> None:
    data = write_data(tmp_path, ("cpg_methylation",), n=60)
    task = TASKS.get("cpg_methylation")
    opened = open_task(find_source(task, data=str(data)), RunConfig(task=(task.key,), data=str(data)))
    part = opened.subsets["train"]
    drawn = some_sequences(part)
    assert len(drawn) == min(32, len(part))
    assert (drawn[0], drawn[-1]) == (part[0]["sequence"], part[len(part) - 1]["sequence"])
    assert some_sequences(part.select([])) == []
