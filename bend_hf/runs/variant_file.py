"""Score a file of variants: read it, score it, write the record, the predictions and the figures.

    from bend_hf import score_file
    scored = score_file("mine.vcf", genome="hg38.fa", model="dnabert2", out="results")
    scored.predictions.score, scored.files["picture"]

This is what ``bend-hf variants`` does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf.config import flags_of, scored_settings
from bend_hf.data.sources import key_of
from bend_hf.embedders._loaded_model import content_facts
from bend_hf.embedders._probe import identity_in
from bend_hf.embedders.from_config import open_model
from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.evaluation.evidence import read_verified
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, check_writable, free_stem, jsonable, member, run_name
from bend_hf.evaluation.run_key import KEY_FIELD, runs_of_key, variant_file_key
from bend_hf.evaluation.uncertainty.intervals import intervals_of
from bend_hf.files import SCORED_VARIANTS, FileState, check_unchanged, file_sha256, file_states
from bend_hf.lease import Watch
from bend_hf.runs.claim import claimed, lock_of
from bend_hf.runs.flag_effects import check_model_flags
from bend_hf.runs.outcome import (
    FoldResult,
    RunInfo,
    RunResults,
    build_record,
    label_of,
    with_detail,
    write_outcome,
)
from bend_hf.training.launch import start_accelerator
from bend_hf.types import Json
from bend_hf.variants.bend_csv import write_bend_csv
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.config import VariantRun
from bend_hf.variants.plots import draw_missing, plots_available
from bend_hf.variants.read import CONSEQUENCE, ReadSettings, VariantFile, read_variants
from bend_hf.variants.score import ScoringResult, batch_keys, score_variants
from bend_hf.variants.scores import own_scores
from bend_hf.variants.summary import METRICS, label_counts, summarize_scores
from bend_hf.variants.supervised_head import VariantHeadResult, VariantHeadSettings, cross_validate_heads

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

_PROBE: Final = "probe_"  # before the kind of a head, in the kinds of files


@dataclass(frozen=True, kw_only=True)
class ScoredFile:
    """A scored file of variants.

    Attributes:
        predictions: Every variant with all its scores.
        summary: Metrics of every score, as ``bend_hf.variants.summary`` returns them.
        probed: Results of the heads on REF and ALT; None if none were asked for.
        record: The result record.
        files: What was written or was there, by kind: record, scores, picture, drawing, csv, probe_linear, probe_mlp.
            Empty on all processes but the main one.
        was_there: Whether an earlier record was found, and nothing was scored.
    """

    predictions: Predictions
    summary: dict[str, Json]
    probed: VariantHeadResult | None
    record: ResultRecord
    files: dict[str, Path]
    was_there: bool = False


def score_file(
    file: str | Path,
    config: VariantRun | None = None,
    *,
    embedder: Embedder | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,  # noqa: ANN401 checked against the fields of VariantRun
) -> ScoredFile:
    """Score the variants of a file. An interrupted run resumes when it is repeated.

    A finished run is not repeated unless ``force`` says so: its record is found by everything that affects the scores,
    and only the CSV or the figure is written, if it is asked for and missing.

    Args:
        file: A BED file with the columns ``ref`` and ``alt``, or a VCF file.
        config: Settings, which are also the flags of ``bend-hf variants``; None takes them from ``settings``.
        embedder: A loaded model; None loads the one that ``config`` names.
        on_progress: Called with the number of scored variants and of all variants.
        settings: Fields of ``bend_hf.variants.VariantRun``, such as ``genome``, ``model`` and ``out``, instead of
            ``config``.

    Raises:
        ConfigError: A setting is unknown or does not fit, or ``config`` is given too.
        BendError: An input is bad. Nothing was scored in that case.
        RecordError: An earlier record does not agree with its predictions; ``force`` scores again.
    """
    config = _configured(config, settings)
    file = Path(file)
    started, moment = time.perf_counter(), datetime.now(UTC)
    key_of(file)
    check_writable(config.out)
    states = file_states(_inputs(file, config).values())
    variants = _read(file, config)
    check_unchanged(states)
    if embedder is None:
        check_model_flags(config)
    accelerator = start_accelerator(device=config.device, tf32=config.tf32)
    if embedder is None:
        embedder = open_model(config)
    identity = identity_in(config.out, embedder) | {f"score {key}": code for key, code in own_scores().items()}
    inputs = _input_facts(file, config)
    key = variant_file_key(
        scored_settings(replace(config, model_dtype=embedder.dtype)),
        task=key_of(file),
        files={kind: facts["sha256"] for kind, facts in inputs.items()},
        identity=identity,
    )
    work = _Work(
        file=file,
        config=config,
        variants=variants,
        inputs=inputs,
        states=states,
        embedder=embedder,
        identity=identity,
        accelerator=accelerator,
        key=key,
        draws=not config.no_plot and plots_available(),
        started=started,
        moment=moment,
    )
    with claimed(lock_of(config.out, key), accelerator, work.find, Watch()) as earlier:
        return work.finish(earlier) if isinstance(earlier, _Earlier) else work.score(on_progress)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A file of variants and a model, checked and opened."""

    file: Path
    config: VariantRun
    variants: VariantFile
    inputs: dict[str, dict[str, str]]
    states: dict[Path, FileState]
    embedder: Embedder
    identity: dict[str, str]
    accelerator: Accelerator
    key: str
    draws: bool
    started: float
    moment: datetime

    @property
    def checkpoint(self) -> ScoringCheckpoint:
        return ScoringCheckpoint(self.config.out / SCORED_VARIANTS)

    def title(self, model: object) -> str | None:
        """The title of the figure; None if none is drawn."""
        return f"{self.file.name}, {model}" if self.draws else None

    def find(self) -> _Earlier | None:
        return None if self.config.force else _find(self.config, self.key)

    def finish(self, earlier: _Earlier) -> ScoredFile:
        """Do what an earlier run did not come to after its record."""
        log.info("%s was there: %s; --force repeats it", self.file, earlier.path)
        files = {}
        if self.accelerator.is_main_process:
            files = earlier.finish(self.config, self.title(earlier.record.model.get("model")))
            if self.checkpoint.folder.is_dir():
                self.checkpoint.remove(batch_keys(self.variants, self.embedder, self.config.settings, self.checkpoint))
        self.accelerator.wait_for_everyone()
        return earlier.as_scored(files)

    def score(self, on_progress: Callable[[int, int], None]) -> ScoredFile:
        """Score the variants, and write all files."""
        config, embedder, accelerator = self.config, self.embedder, self.accelerator
        scored = score_variants(
            self.variants, embedder, accelerator, config.settings, checkpoint=self.checkpoint, on_progress=on_progress
        )
        if scored.short_context:
            log.warning("%s: %d variants near a contig's end have less context", self.file, scored.short_context)
        model = {**embedder.description, **content_facts(self.identity), "identity": dict(self.identity)}
        evaluated = _evaluate(scored, config, self.checkpoint, accelerator, model)
        results = evaluated.results
        info = RunInfo(
            task=key_of(self.file),
            protocol=config.protocol,
            settings={
                **{name: jsonable(value) for name, value in asdict(config).items()},
                "model_dtype": embedder.dtype,
                "file": str(self.file),
                KEY_FIELD: self.key,
            },
            data=_data_facts(self.inputs, self.variants, scored),
            n_items=len(self.variants),
            accelerator=accelerator,
            started=self.started,
        )
        check_unchanged(self.states)
        record = build_record(info, results)
        files = {}
        if accelerator.is_main_process:
            moment = self.moment.strftime("%Y%m%dT%H%M%S")
            name = run_name(info.task, label_of(embedder, config.model), config.seed, moment)
            stem = free_stem(config.out, name)
            outcome = write_outcome(record, results, stem)
            record, files = outcome.record, _written(outcome.record, outcome.path)
            files |= _write_missing(config, scored.predictions, stem, self.title(model.get("model")))
            self.checkpoint.remove(scored.keys)
        accelerator.wait_for_everyone()
        return ScoredFile(
            predictions=scored.predictions,
            summary=evaluated.summary,
            probed=evaluated.probed,
            record=record,
            files=files,
        )


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """What the scores are worth: the summary of each, the heads on REF and ALT, and both as results of a run."""

    summary: dict[str, Json]
    probed: VariantHeadResult | None
    results: RunResults


def _evaluate(
    scored: ScoringResult,
    config: VariantRun,
    checkpoint: ScoringCheckpoint,
    accelerator: Accelerator,
    model: Mapping[str, object],
) -> _Evaluated:
    """Summarize the scores, and train heads on the embeddings if they are asked for. Every process must call it."""
    group_by = config.consequence_column or (CONSEQUENCE if CONSEQUENCE in scored.predictions.columns else None)
    summary = summarize_scores(scored.predictions, group_by=group_by, intervals=intervals_of)
    probed = None
    if config.probe:
        probed = cross_validate_heads(scored, checkpoint, accelerator, VariantHeadSettings(seed=config.seed))
    results = RunResults(
        folds=[FoldResult(fold=None, predictions=scored.predictions)],
        model={name: jsonable(value) for name, value in model.items()},
        metrics=_metrics(summary, scored, probed),
        further=probed.predictions if probed is not None else {},
        batch_keys=scored.keys,
    )
    return _Evaluated(summary=summary, probed=probed, results=results)


def _configured(config: VariantRun | None, settings: dict[str, Any]) -> VariantRun:
    """Return the configuration, or make one from single settings.

    Raises:
        ConfigError: Both are given, or a setting is unknown or does not fit.
    """
    if config is None:
        known = sorted(flags_of(VariantRun))
        for name in settings:
            if name not in known:
                raise ConfigError(f"score_file has no setting {name!r}; {did_you_mean(name, known)}")
        return VariantRun(**settings)
    if settings:
        raise ConfigError(
            f"score_file was given a configuration and also {', '.join(settings)}; put all settings into one of them"
        )
    return config


@dataclass(frozen=True, kw_only=True)
class _Earlier:
    """A finished run that was found by its key."""

    record: ResultRecord
    path: Path
    predictions: Predictions
    further: dict[str, Predictions]

    @property
    def stem(self) -> Path:
        """Path of all files of the run, without the ending."""
        return self.path.with_name(self.path.name.removesuffix(".json"))

    def finish(self, config: VariantRun, title: str | None) -> dict[str, Path]:
        """Write what is asked for and missing; return all files of the run by kind, as ``_write_missing`` does."""
        return _written(self.record, self.path) | _write_missing(config, self.predictions, self.stem, title)

    def as_scored(self, files: dict[str, Path]) -> ScoredFile:
        """Return it as if it had been scored now."""
        detail = member(self.record.metrics, self.record.main_metric, "detail")
        probe = member(detail, "probe")
        return ScoredFile(
            predictions=self.predictions,
            summary={
                "labels": label_counts(self.predictions),
                "scores": member(detail, "by_score"),
                "groups": member(detail, "by_group"),
            },
            probed=VariantHeadResult(detail=probe, predictions=self.further) if isinstance(probe, dict) else None,
            record=self.record,
            files=files,
            was_there=True,
        )


def _find(config: VariantRun, key: str) -> _Earlier | None:
    """Find a finished run with all its predictions.

    Raises:
        RecordError: It does not agree with its predictions.
    """
    for path in runs_of_key(config.out, key):
        record = read_verified(path)
        files = _written(record, path)
        lacking = [file for file in files.values() if not file.is_file()]
        if not lacking:
            further = {
                kind.removeprefix(_PROBE): read_predictions(file)
                for kind, file in files.items()
                if kind.startswith(_PROBE)
            }
            return _Earlier(record=record, path=path, predictions=read_predictions(files["scores"]), further=further)
        log.info("%s lacks %s, so the run is repeated", path, lacking[0].name)
    return None


def _written(record: ResultRecord, path: Path) -> dict[str, Path]:
    """Return a record and the predictions that it names, by kind."""
    further = record.predictions.get("further")
    return {
        "record": path,
        "scores": path.with_name(str(record.predictions.get("file"))),
        **{
            f"{_PROBE}{kind}": path.with_name(str(member(entry, "file")))
            for kind, entry in (further.items() if isinstance(further, dict) else ())
        },
    }


def _write_missing(config: VariantRun, predictions: Predictions, stem: Path, title: str | None) -> dict[str, Path]:
    """Write the table and the figure that were asked for, unless they are there; return their files by kind.

    Args:
        config: The settings.
        predictions: The scores.
        stem: Path of all files of the run, without the ending.
        title: Title of the figure; None draws none.
    """
    files = {}
    if config.csv:
        files["csv"] = stem.with_name(stem.name + ".csv")
        if not files["csv"].is_file():
            write_bend_csv(predictions, files["csv"])
    if title is not None:
        files |= zip(("picture", "drawing"), draw_missing(predictions, stem, title=title), strict=False)
    return files


def _read(file: Path, config: VariantRun) -> VariantFile:
    """Read and check the variants, and log how many are left out."""
    variants = read_variants(
        file,
        config.genome,
        ReadSettings(
            ref_mismatch=config.ref_mismatch,
            indels=config.indels,
            label_column=config.label_column,
            keep=(config.consequence_column,) if config.consequence_column else (),
        ),
    )
    if config.consequence_column is None and CONSEQUENCE in variants.bed.columns.column_names:
        variants = replace(variants, keep=(CONSEQUENCE,))
    counts = variants.counts
    for n, text in (
        (counts.dropped_ref_mismatch, "left out, because REF differs from the genome"),
        (counts.dropped_indels, "left out, because they are not single-nucleotide substitutions"),
        (
            counts.scored_by_likelihood_alone,
            "scored by likelihood only, because they are not single-nucleotide substitutions",
        ),
    ):
        if n:
            log.warning("%s: %d of %d variants are %s", file, n, counts.rows, text)
    return variants


def _metrics(summary: dict[str, Json], scored: ScoringResult, probed: VariantHeadResult | None) -> dict[str, Json]:
    """Return the metrics of BEND's score; those of all other scores are in the detail of the first."""
    scores = summary["scores"]
    main = scores.get("score") if isinstance(scores, dict) else None
    metrics: dict[str, Json] = {}
    for metric in METRICS:
        entry = main.get(metric) if isinstance(main, dict) else None
        metrics[metric] = {"value": None, **(entry if isinstance(entry, dict) else {}), "detail": {}}
    return with_detail(
        metrics,
        {
            "by_score": scores,
            "by_group": summary["groups"],
            "probe": probed.detail if probed is not None else None,
            "no_likelihood": scored.no_likelihood,
        },
    )


def _inputs(file: Path, config: VariantRun) -> dict[str, Path]:
    return {"variants": file, "genome": config.genome}


def _input_facts(file: Path, config: VariantRun) -> dict[str, dict[str, str]]:
    """Return name and sha256 of each file that was read, by kind."""
    inputs = _inputs(file, config)
    return {kind: {"name": path.name, "sha256": file_sha256(path)} for kind, path in inputs.items()}


def _data_facts(
    inputs: Mapping[str, Mapping[str, str]], variants: VariantFile, scored: ScoringResult
) -> dict[str, Json]:
    return {
        "origin": "files",
        "assembly": "unknown",
        "files": {kind: dict(facts) for kind, facts in inputs.items()},
        "items": {"test": len(scored.predictions)},
        "identity": {"test": scored.predictions.item_sha256},
        "changes": {**variants.counts.facts(), "short_context": scored.short_context},
    }
