"""``bend-hf predict``: apply a trained head to the intervals of a BED file or the sequences of a FASTA file.

bend-hf predict --head results/RECORD.json --bed mine.bed --genome hg38.fa --out classes.bed
bend-hf predict --head results/RECORD.json --fasta contigs.fa --decode grammar --gff3 genes.gff3
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import ComputeFlags, Condition, add_flags, flag_group, given_values


def _add_flags(parser: argparse.ArgumentParser) -> None:
    data, model = flag_group(parser, "data"), flag_group(parser, "model")
    head, output = flag_group(parser, "head"), flag_group(parser, "output")
    head.add_argument(
        "--head",
        required=True,
        metavar="HEAD",
        help="trained head: a .safetensors file, the record of its run, a folder, or OWNER/NAME on the Hub",
    )
    head.add_argument("--task", help="which head, if a folder or repository holds several")
    head.add_argument("--revision", help="commit of the repository of the head")
    data.add_argument("--bed", type=Path, help="BED file of intervals, with --genome")
    data.add_argument("--genome", type=Path, help="FASTA file that holds the intervals of --bed")
    data.add_argument("--fasta", type=Path, help="FASTA file of sequences, instead of --bed and --genome")
    model.add_argument("--model", help="embedder, if it lies elsewhere than in the training")
    model.add_argument("--checkpoint", help="weights of the embedder, if they lie elsewhere than in the training")
    add_flags(parser, ComputeFlags)
    output.add_argument("--out", type=Path, help="file to write: .parquet (all scores), .bed (classes), .bedgraph, .bw")
    output.add_argument("--gff3", type=Path, metavar="FILE", help="file of genes to write, with --decode grammar")
    head.add_argument(
        "--decode",
        choices=["argmax", "grammar"],
        default="argmax",
        help="how classes are chosen: the most probable one of each nucleotide, or the best gene structure, for heads "
        "that were trained with --decode grammar (default: argmax)",
    )
    output.add_argument("--label", help="class or label whose score a .bedgraph or .bw holds")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.data.genome import Genome
    from bend_hf.data.plain_bed import genome_of
    from bend_hf.errors import ConfigError
    from bend_hf.runs.flag_effects import check_compute_flags
    from bend_hf.runs.predict_file import intervals_of_bed, intervals_of_fasta, predict_file
    from bend_hf.runs.predict_genes import predict_genes
    from bend_hf.training.load_head import load_head

    if (parsed.bed is None) == (parsed.fasta is None):
        raise ConfigError("give either --bed FILE with --genome FILE, or --fasta FILE")
    if parsed.out is None and parsed.gff3 is None:
        raise ConfigError("nothing is to be written; give --out FILE, or --decode grammar with --gff3 FILE")
    compute = ComputeFlags(**given_values(ComputeFlags, parsed))
    genome = Genome(parsed.fasta if parsed.bed is None else genome_of(parsed.bed, parsed.genome))
    head = load_head(
        parsed.head,
        task=parsed.task,
        embedder=parsed.model,
        checkpoint=parsed.checkpoint,
        revision=parsed.revision,
        device=compute.device,
        batch_tokens=compute.batch_tokens,
        compile=compute.compile,
    )
    check_compute_flags(compute, parsed.model or str(head.config.model.get("model")), parsed.checkpoint)
    if parsed.bed is None:
        intervals = intervals_of_fasta(genome)
    else:
        intervals = intervals_of_bed(parsed.bed, stranded=head.config.stranded)
    if parsed.decode == "grammar":
        done = predict_genes(head, intervals, genome, parsed.out, gff3=parsed.gff3, label=parsed.label)
    else:
        done = predict_file(head, intervals, genome, parsed.out, label=parsed.label)
    text = f"{done.n_rows:,} predictions of {done.n_intervals:,} intervals: {done.path}"
    if done.gff3 is not None:
        text += f"\n{done.n_genes:,} genes: {done.gff3}"
    if done.n_left_out_bp:
        text += f"\n{done.n_left_out_bp:,} nucleotides at ends of intervals fill no window and have no prediction"
    show(parsed, [text], [asdict(done)])
    return 0


_CONDITIONS: Final = (
    Condition(flags=("gff3",), met=lambda given: given.decode == "grammar", reason="only --decode grammar gives genes"),
    Condition(flags=("label",), met=lambda given: given.out is not None, reason="only an --out file holds one label"),
    Condition(flags=("genome",), met=lambda given: given.bed is not None, reason="only --bed reads a genome"),
)

COMMANDS = (
    Command(
        key="predict",
        text="apply a trained head to new sequences",
        example="bend-hf predict --head results --fasta my.fa --out classes.bed",
        has_records=True,
        add_flags=_add_flags,
        conditions=_CONDITIONS,
        run=_run,
    ),
)
