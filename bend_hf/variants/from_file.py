"""From a file of variants to scores, record and picture: what ``bend-hf variants`` does.

from bend_hf.variants import VariantRun, run
done = run(Path("mine.vcf"), VariantRun(genome=Path("hg38.fa"), model="dnabert2", out=Path("results")))
done.predictions.score, done.files["picture"]
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.embedders.from_config import open_model
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.record import ResultRecord, check_writable, free_stem, jsonable, run_name, write_record
from bend_hf.files import file_sha256
from bend_hf.tasks import VariantSpec
from bend_hf.types import Json
from bend_hf.variants.bend_csv import write_bend_csv
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.config import VariantRun
from bend_hf.variants.plots import draw_score, plots_available
from bend_hf.variants.read import CONSEQUENCE, ReadSettings, VariantFile, read_variants
from bend_hf.variants.score import ScoringResult, score_variants
from bend_hf.variants.summary import METRICS, Intervals, summarize_scores
from bend_hf.variants.supervised_head import VariantHeadResult, VariantHeadSettings, cross_validate_heads

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

_PARTS: Final = ".parts"  # folder of finished pieces in the output folder, gone when a run is done


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a run gave.

    Attributes:
        predictions: Every variant with all scores.
        summary: Metrics of every score, see ``summarize_scores``.
        probed: What the probes said, where they were asked for.
        record: The result record.
        files: What was written, by kind: record, scores, picture, drawing, csv, probe_linear, probe_mlp.
    """

    predictions: Predictions
    summary: dict[str, Json]
    probed: VariantHeadResult | None
    record: ResultRecord
    files: dict[str, Path]


def score_file(
    file: Path,
    config: VariantRun,
    *,
    intervals: Intervals | None = None,
    embedder: Embedder | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Done:
    """Reads and checks everything, then scores, and writes what came of it.

    Args:
        file: A bed with ``ref`` and ``alt``, or a VCF.
        config: What to do.
        intervals: Gives the record its intervals; None leaves them out.
        embedder: A model that is loaded already; None loads the one that is named.
        progress: Told the variants done, and how many there are.

    Raises:
        BendError: An input is bad; nothing was scored then.
    """
    started, moment = time.perf_counter(), datetime.now(UTC)
    spec = VariantSpec()
    variants = _read(file, config, spec)
    check_writable(config.out)
    from accelerate import Accelerator

    accelerator = Accelerator()
    if embedder is None:
        embedder = open_model(config)
    parts = ScoringCheckpoint(config.out / _PARTS)
    draws = not config.no_plot and plots_available()
    scored = score_variants(variants, embedder, accelerator, config.settings, checkpoint=parts, on_progress=progress)
    if scored.short_context:
        log.warning(
            "%s: %d variants stand so near a contig's end that they have less context", file, scored.short_context
        )
    group_by = config.consequence_column or (CONSEQUENCE if CONSEQUENCE in scored.predictions.columns else None)
    summary = summarize_scores(scored.predictions, group_by=group_by, intervals=intervals)
    probed = (
        cross_validate_heads(scored, parts, accelerator, VariantHeadSettings(seed=config.seed))
        if config.probe
        else None
    )
    record = _record(
        file, config, variants, embedder, scored, summary, probed, time.perf_counter() - started, accelerator
    )
    label = embedder.spec.key if embedder.spec is not None else Path(config.model).name
    stem = free_stem(
        config.out,
        run_name(file.name.split(".")[0], label, config.seed, moment.strftime("%Y%m%dT%H%M%S")),
    )
    files: dict[str, Path] = {}
    if accelerator.is_main_process:
        files, record = _write(file, config, stem, scored.predictions, record, probed, draws=draws)
        parts.remove(scored.keys)
    accelerator.wait_for_everyone()
    return Done(predictions=scored.predictions, summary=summary, probed=probed, record=record, files=files)


def _read(file: Path, config: VariantRun, spec: VariantSpec) -> VariantFile:
    def read(keep: list[str]) -> VariantFile:
        return read_variants(
            file,
            config.genome,
            ReadSettings(
                ref_mismatch=config.ref_mismatch,
                indels=config.indels,
                label_column=config.label_column,
                keep=tuple(keep),
            ),
            context=spec,
        )

    variants = read([config.consequence_column] if config.consequence_column else [])
    if config.consequence_column is None and CONSEQUENCE in variants.bed.columns.column_names:
        variants = replace(variants, keep=(CONSEQUENCE,))
    counts = variants.counts
    for n, text in (
        (counts.dropped_ref_mismatch, "left out, as REF is not the genome's base"),
        (counts.dropped_indels, "left out, as they are no substitution of one base"),
        (counts.scored_by_likelihood_alone, "scored by likelihood alone, as they are no substitution of one base"),
    ):
        if n:
            log.warning("%s: %d of %d variants are %s", file, n, counts.rows, text)
    return variants


def _record(
    file: Path,
    config: VariantRun,
    variants: VariantFile,
    embedder: Embedder,
    scored: ScoringResult,
    summary: dict[str, Json],
    probed: VariantHeadResult | None,
    seconds: float,
    accelerator: Accelerator,
) -> ResultRecord:
    scores = summary["scores"]
    main = scores.get("score") if isinstance(scores, dict) else None
    detail: dict[str, Json] = {
        "by_score": scores,
        "by_group": summary["groups"],
        "probe": probed.detail if probed is not None else None,
        "no_likelihood": scored.no_likelihood,
    }
    metrics: dict[str, Json] = {}
    for metric in METRICS:
        entry = main.get(metric) if isinstance(main, dict) else None
        metrics[metric] = {"value": None, **(entry if isinstance(entry, dict) else {}), "detail": {}}
    metrics[METRICS[0]] = {**dict(metrics[METRICS[0]]), "detail": detail}  # type: ignore[arg-type]
    predictions = scored.predictions
    return ResultRecord(
        task=file.name.split(".")[0],
        protocol=config.protocol,
        model=jsonable(embedder.description),  # type: ignore[arg-type]
        data={
            "origin": "files",
            "assembly": "unknown",
            "files": {
                name: {"name": path.name, "sha256": file_sha256(path)}
                for name, path in (("variants", file), ("genome", config.genome))
            },
            "items": {"test": len(predictions)},
            "changes": {**variants.counts.facts(), "short_context": scored.short_context},
        },
        config=jsonable({"file": file, **asdict(config)}),  # type: ignore[arg-type]
        metrics=metrics,
        main_metric=METRICS[0],
        coverage={
            "scored": len(predictions),
            "items": len(variants),
            "windows": len(predictions),
            "item_sha256": predictions.item_sha256,
        },
        training=None,
        folds=[],
        cost={
            "seconds": seconds,
            "device": str(accelerator.device),
            "processes": accelerator.num_processes,
        },
        predictions={},
    )


def _write(
    file: Path,
    config: VariantRun,
    stem: Path,
    predictions: Predictions,
    record: ResultRecord,
    probed: VariantHeadResult | None,
    *,
    draws: bool,
) -> tuple[dict[str, Path], ResultRecord]:
    files: dict[str, Path] = {"scores": stem.with_name(stem.name + ".parquet")}
    digest = write_predictions(predictions, files["scores"])
    if probed is not None:
        for kind, said in probed.predictions.items():
            files[f"probe_{kind}"] = stem.with_name(f"{stem.name}.{kind}_probe.parquet")
            write_predictions(said, files[f"probe_{kind}"])
    if config.csv:
        files["csv"] = write_bend_csv(predictions, stem.with_name(stem.name + ".csv"))
    if draws:
        title = f"{file.name}, {record.model.get('model')}"
        files["picture"], files["drawing"] = draw_score(predictions, stem, title=title)
    record = replace(record, predictions={"file": files["scores"].name, "sha256": digest, "items": len(predictions)})
    files["record"] = stem.with_name(stem.name + ".json")
    write_record(record, files["record"])
    return files, record
