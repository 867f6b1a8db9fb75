"""Adding one of a kind takes one file: one of each is written into a copy of the checkout, whose tests then run.

To check another kind, add an ``Addition`` to ``ADDITIONS``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("bend_hf", "metrics", "model_cards", "accelerate_configs", "dataset_scripts", "tests", "pyproject.toml")


@dataclass(frozen=True, kw_only=True)
class Addition:
    """One thing that is added.

    Attributes:
        kind: What it is, for the test's name.
        key: Its key; a test of ``contract`` must carry it in its name or parameter.
        files: The files that are written, by their path in the checkout.
        contract: Test files that run over the registry; only their tests of ``key`` run, see ``whole``.
        whole: Test files that must pass as a whole, because they could notice a further entry.
        code: Python that must run in the copy without an error.
    """

    kind: str
    key: str
    files: dict[str, str]
    contract: tuple[str, ...]
    whole: tuple[str, ...] = ()
    code: str = ""


TASK = Addition(
    kind="task",
    key="promoter_finding",
    files={
        "bend_hf/tasks/promoter_finding.py": '''
            """Promoter finding: does a window hold a promoter."""

            from bend_hf.tasks import Head, MultiLabel, NamedSplits, TaskSpec, TrainingSpec

            TASKS = (
                TaskSpec(
                    key="promoter_finding",
                    group="promoter_finding",
                    title="Promoter finding",
                    description="Find the windows that hold a promoter.",
                    assembly="GRCh38",
                    window_bp=128,
                    label=MultiLabel(names=("tata", "no_tata")),
                    stranded=True,
                    partition=NamedSplits(),
                    head=Head("cnn", hidden=8, pool_bp=128),
                    training=TrainingSpec(loss="bce", batch_size=16, learning_rate=0.001),
                    metric="auroc",
                    citations=(),
                    license="CC0",
                ),
            )
        '''
    },
    contract=("tests/contract/test_tasks.py",),
    whole=("tests/contract/test_bend_tasks.py",),
    code="""
        from bend_hf.data.sources import sample_tasks
        from bend_hf.errors import SourceError
        from bend_hf.data.sources import sources_of
        from bend_hf.config import DataConfig
        from bend_hf.tasks import TASKS

        assert "promoter_finding" in TASKS
        assert len(sample_tasks()) == 7, "bend-hf demo runs over these"
        for data in (None, "sample"):
            try:
                sources_of(DataConfig(task=("promoter_finding",), data=data))
            except SourceError as error:
                assert "the bundled sample" in str(error) and "--bed BED and --genome FASTA" in str(error), error
                assert "download" not in str(error), error
            else:
                raise AssertionError("the sample cannot hold a task that was added just now")
    """,
)

METRIC = Addition(
    kind="metric",
    key="balanced_accuracy",
    files={
        "metrics/balanced_accuracy/balanced_accuracy.py": '''
            """Balanced accuracy: the mean recall over the classes that occur.

            >>> import evaluate
            >>> metric = evaluate.load("bend/balanced_accuracy")
            >>> metric.compute(predictions=[0, 0, 1, 1], references=[0, 0, 0, 1])["balanced_accuracy"]
            0.8333333333333333
            """

            import datasets
            import evaluate
            from sklearn.metrics import recall_score

            MAIN = "balanced_accuracy"
            PERFECT = 1.0
            HIGHER_IS_BETTER = True

            _KWARGS_DESCRIPTION = """
            Args:
                predictions: Class numbers.
                references: Class numbers.

            Returns:
                `balanced_accuracy` (`float`): Mean recall over the classes that occur in the references.

            Example:
                >>> import evaluate
                >>> metric = evaluate.load("bend/balanced_accuracy")
                >>> metric.compute(predictions=[0, 1], references=[0, 1])["balanced_accuracy"]
                1.0
            """


            class BalancedAccuracy(evaluate.Metric):
                """A metric as the template of evaluate makes it: it takes predictions and references alone."""

                def _info(self):
                    number = datasets.Value("int64")
                    return evaluate.MetricInfo(
                        description="The mean recall over the classes that occur.",
                        citation="@book{none, title={None}}",
                        inputs_description=_KWARGS_DESCRIPTION,
                        features=datasets.Features({"predictions": number, "references": number}),
                    )

                def _compute(self, predictions, references):
                    classes = sorted(set(references))
                    value = recall_score(references, predictions, labels=classes, average="macro")
                    return {"balanced_accuracy": float(value)}
        ''',
        "metrics/balanced_accuracy/README.md": """
            ---
            title: balanced_accuracy
            sdk: gradio
            sdk_version: 6.31.0
            app_file: app.py
            license: bsd-3-clause
            tags:
            - evaluate
            - metric
            ---

            # Metric card for balanced accuracy

            The result `balanced_accuracy` is the mean recall over the classes in `references`, of `predictions`.

            Edge cases: classes that do not occur in the references are left out.

            ```python
            import evaluate

            metric = evaluate.load("bend/balanced_accuracy")
            assert metric.compute(predictions=[0, 1], references=[0, 1])["balanced_accuracy"] == 1.0
            ```
        """,
    },
    contract=("tests/contract/test_metrics.py",),
    code="""
        from bend_hf.evaluation.metrics import metric_files, score

        found = score("balanced_accuracy", [0, 0, 1, 1, 1], [0, 0, 0, 1, -100], names=["no", "yes"])
        assert round(found.value, 4) == 0.8333
        assert list(metric_files("balanced_accuracy")) == [
            "README.md", "app.py", "balanced_accuracy.py", "requirements.txt"
        ]
        assert b"scikit-learn" in metric_files("balanced_accuracy")["requirements.txt"]
    """,
)

HEAD = Addition(
    kind="head",
    key="mean",
    files={
        "bend_hf/training/heads/mean.py": '''
            """The mean of each label window and a linear layer."""

            from torch import Tensor, nn

            from bend_hf.training.heads._spec import HeadSpec
            from bend_hf.training.heads._upsample import pool, spread


            class MeanHead(nn.Module):
                """A mean over nucleotides, then a linear layer."""

                def __init__(self, *, width: int, n_outputs: int, pool_bp: int | None = None) -> None:
                    super().__init__()
                    self.pool_bp = pool_bp
                    self.linear = nn.Linear(width, n_outputs)

                def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
                    """Score every label window."""
                    return self.linear(pool(spread(x_BTD, token_of_BL).transpose(1, 2), self.pool_bp))


            HEADS = (HeadSpec(key="mean", text="a mean and a linear layer", build=MeanHead),)
        '''
    },
    contract=("tests/contract/test_heads.py",),
    whole=("tests/unit/training/test_heads.py",),
    code="""
        import json
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-m", "bend_hf.train", "--task", "cpg_methylation", "--data", "sample"]
            + ["--model", "onehot", "--head", "mean", "--epochs", "1", "--out", "out", "--no-cache"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        record = json.loads(open(done.stdout.split("record: ")[1].strip()).read())
        assert record["training"]["head"] == {"kind": "mean", "pool_bp": 512}
    """,
)

CONTROL = Addition(
    kind="control",
    key="length",
    files={
        "bend_hf/runs/controls/length.py": '''
            """The length of each sequence as its score, the same for every window."""

            import numpy as np

            from bend_hf.runs.controls._features import Windows
            from bend_hf.runs.controls._linear import collect
            from bend_hf.runs.controls._spec import ControlResult, ControlSpec, needs_training


            def _predict(task, splits, seed):
                test = Windows(splits["test"], task.label, None)
                scored = (
                    (batch, np.repeat(test.lengths_bp[batch.rows], test.counts[batch.rows])[:, None]
                    * np.ones(task.n_outputs) / test.lengths_bp.max())
                    for batch in test.batches()
                )
                return ControlResult(predictions=collect(task, splits["test"], test.counts, scored))


            CONTROLS = (
                ControlSpec(
                    key="length",
                    title="Length",
                    text="The length of the sequence.",
                    why_not=needs_training,
                    predict=_predict,
                    head="None",
                ),
            )
        '''
    },
    contract=("tests/contract/test_controls.py",),
    code="""
        from bend_hf.cli._main import main
        from bend_hf.evaluation.record import find_records, read_record
        from pathlib import Path

        flags = "--task cpg_methylation --data sample --out out --only length"
        assert main(["controls", *flags.split()]) == 0
        (path,) = find_records([Path("out")])
        assert read_record(path).model["model"] == "length" and read_record(path).is_control
    """,
)

MODEL = Addition(
    kind="model",
    key="purine",
    files={
        "bend_hf/embedders/purine.py": '''
            """Purine: one embedding for each nucleotide."""

            from bend_hf.embedders._alignment import assemble
            from bend_hf.embedders._checkpoint_files import read_json
            from bend_hf.embedders._embedder import Embedder
            from bend_hf.embedders._nucleotides import NucleotideVocabulary, tiny_nucleotide_tokenizer
            from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
            from bend_hf.embedders._tokens import Nucleotides, single_nucleotides


            def _tiny():
                return TinyCheckpoint(
                    config={"vocab_size": 7, "hidden_size": 8}, tokenizer=tiny_nucleotide_tokenizer()
                )


            MODELS = (
                ModelSpec(
                    key="purine",
                    embedder="purine:PurineEmbedder",
                    family="Purine",
                    checkpoint="org/purine",
                    width=8,
                    training_data="nothing",
                    paper="https://example.org/purine",
                    tiny=_tiny,
                ),
            )


            class PurineEmbedder(Embedder):
                """One embedding for each nucleotide."""

                def _load(self):
                    from torch import nn

                    config = read_json(self.folder / "config.json")
                    self._vocabulary = NucleotideVocabulary.read(self.folder / "tokenizer.json")
                    self.pad_id = self._vocabulary.padding
                    self.model = self._build(lambda: nn.Embedding(config["vocab_size"], config["hidden_size"]))

                @property
                def width(self):
                    return self.model.embedding_dim

                def _tokenize(self, sequences):
                    stream = single_nucleotides(Nucleotides.of(sequences), self._vocabulary.table)
                    return assemble(stream, self._window(20))

                def _hidden(self, ids_BT, mask_BT, layer):
                    x_BTD = self.model(ids_BT)
                    return x_BTD if layer == 0 else x_BTD.tanh()
        '''
    },
    contract=("tests/contract/test_embedders.py",),
    code="""
        from bend_hf.embedders import MODELS, load_embedder

        folder = MODELS.get("purine").tiny().write(__import__("pathlib").Path("tiny"))
        embedder = load_embedder("purine", checkpoint=folder, random_init=True)
        assert embedder("ACGTN" * 10, upsample_embeddings=True).shape == (50, 8)
        assert embedder.description["model"] == "purine"
    """,
)

COMMAND = Addition(
    kind="command",
    key="assemblies",
    files={
        "bend_hf/cli/assemblies.py": '''
            """``bend-hf assemblies``: list the genome assembly of each task."""

            import argparse

            from bend_hf.cli import Command


            def _add_flags(parser: argparse.ArgumentParser) -> None:
                from bend_hf.config import flag_group

                data = flag_group(parser, "data")
                data.add_argument("--only", metavar="ASSEMBLY", help="list the tasks of one assembly")


            def _run(parsed: argparse.Namespace) -> int:
                from bend_hf.tasks import TASKS

                for task in TASKS:
                    if parsed.only in (None, task.assembly):
                        print(f"{task.key} {task.assembly}")
                return 0


            COMMANDS = (
                Command(
                    key="assemblies",
                    text="list the genome assembly of each task",
                    example="bend-hf assemblies --only GRCh38",
                    add_flags=_add_flags,
                    run=_run,
                ),
            )
        '''
    },
    contract=("tests/contract/test_commands.py",),
    whole=("tests/contract/test_commands.py", "tests/contract/test_layers.py"),
    code="""
        import subprocess, sys

        flags = ["assemblies", "--only", "GRCh38"]
        done = subprocess.run([sys.executable, "-m", "bend_hf", *flags], capture_output=True, text=True, check=True)
        assert "gene_finding GRCh38" in done.stdout, done.stdout
    """,
)

SCORE = Addition(
    kind="variant score",
    key="largest_change",
    files={
        "bend_hf/variants/scores/largest_change.py": '''
            """The largest change of any number of the embedding at the variant."""

            import numpy as np

            from bend_hf.variants.scores import VariantScore


            def _compute(batch):
                return np.abs(batch.alt_embeddings - batch.ref_embeddings).max(axis=1)


            SCORES = (
                VariantScore(
                    key="largest_change",
                    text="largest change of any number at the variant",
                    rises_with_effect=True,
                    compute=_compute,
                ),
            )
        '''
    },
    contract=("tests/contract/test_variant_scores.py",),
    whole=("tests/unit/variants/test_summary.py",),
    code="""
        from tests.variant_controls import Control, column, scores_of

        found = scores_of(Control(), [("TTATT", 2, "A", "G", 1)], likelihood=False)
        assert column(found, "largest_change") == [1.0]
        assert found.table().column_names[-2:] == ["target", "score"]
    """,
)

ADDITIONS = (
    TASK,
    MODEL,
    METRIC,
    HEAD,
    CONTROL,
    COMMAND,
    SCORE,
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that all additions are written into. None of them may change a file that is there."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source, target = CHECKOUT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for addition in ADDITIONS:
        for name, content in addition.files.items():
            path = folder / name
            assert not path.exists(), f"{name} is there already; an addition must not change a file"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content).lstrip("\n"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def passed(checkout: Path) -> list[str]:
    """The names of the contract tests of the additions, all of which passed."""
    keys = " or ".join(addition.key for addition in ADDITIONS)
    files = dict.fromkeys(name for addition in ADDITIONS for name in addition.contract)
    done = run_tests(checkout, "-rA", "-k", keys, *files)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return re.findall(r"^PASSED (\S+)", done.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.kind)
def test_contract_tests_of_an_addition_pass(addition: Addition, passed: list[str]) -> None:
    for file in addition.contract:
        assert [name for name in passed if name.startswith(file) and addition.key in name]


@pytest.mark.long
def test_no_other_test_minds_the_additions(checkout: Path) -> None:
    done = run_tests(checkout, *dict.fromkeys(name for addition in ADDITIONS for name in addition.whole))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("addition", [one for one in ADDITIONS if one.code], ids=lambda addition: addition.kind)
def test_an_addition_is_used_by_its_name(addition: Addition, checkout: Path, tmp_path: Path) -> None:
    done = run_python(checkout, "-c", dedent(addition.code), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def run_tests(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest inside the copy."""
    return run_python(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)


def run_python(checkout: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python inside the copy or another folder, so that it imports the copy."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd or checkout, env=environment, capture_output=True, text=True, check=False
    )
