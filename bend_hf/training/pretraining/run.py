"""Pretrain a DNA language model on a FASTA file, and write a folder that the embedders load.

    accelerate launch -m bend_hf.pretrain --model convnet --genome GRCh38.fa --out my-convnet
    python -m bend_hf.pretrain --model awdlstm --genome GRCh38.fa --out my-lstm --steps 2000 --window-bp 256

An interrupted run resumes when the command is repeated, and ends with the same bits.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bend_hf.errors import BendError, ConfigError
from bend_hf.files import start_logging, write_text
from bend_hf.lease import Lease
from bend_hf.training.launch import choose_device, missing_processes, run_on_main_process
from bend_hf.training.pretraining.config import PretrainConfig, parse_pretrain
from bend_hf.training.pretraining.data import Inputs, PretrainRun, open_inputs
from bend_hf.training.pretraining.run_folder import RunFolder
from bend_hf.training.pretraining.summary import Summary, as_text, ngram_tables, read_summary, summarize

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def run(config: PretrainConfig) -> Summary:
    """Train, resume a training, or read the summary of one that is finished.

    Raises:
        BendError: An input is invalid; nothing was trained.
    """
    began = time.perf_counter()
    config = config.resolved()
    if config.out is None:
        raise ConfigError("--out is missing; give the folder of the trained model")
    accelerator = _start(config)
    network = config.family.build(config.family.resolve(config.set, window_bp=config.window_bp), config.seed)
    inputs = open_inputs(config)
    folder = RunFolder(config.out)
    lease: Lease | None = None

    def claim() -> None:
        nonlocal lease
        lease = folder.claim(config, inputs.identity)

    run_on_main_process(accelerator, claim)
    try:
        if folder.summary.exists():
            log.info("%s is already trained", config.out)
            return read_summary(folder)
        return _train(
            PretrainRun(
                config=config,
                inputs=inputs,
                network=network,
                accelerator=accelerator,
                folder=folder,
                began=began,
            )
        )
    finally:
        if lease is not None:
            lease.release()


def _train(run: PretrainRun) -> Summary:
    """Train in a folder that this run has claimed."""
    import json

    from bend_hf.embedders._compile import compile_network
    from bend_hf.training.checkpoints import load_trained
    from bend_hf.training.pretraining.objectives import LanguageModelObjective
    from bend_hf.training.pretraining.trainer import Pretrainer

    config, network, folder = run.config, run.network, run.folder
    is_main = run.accelerator.is_main_process
    tables = ngram_tables(config, run.inputs, folder) if is_main else ()
    run.accelerator.wait_for_everyone()
    if is_main:
        folder.write_regions(run.inputs.split.train)
        log.info(
            "%s with %s parameters; %s windows to draw from, %s left out for their N; %s windows to validate on",
            config.family.key,
            f"{sum(weight.numel() for weight in network.parameters()):,}",
            f"{run.inputs.train.n_windows:,}",
            f"{run.inputs.train.n_left_out:,}",
            f"{len(run.inputs.held_out_BL):,}",
        )
    if config.compile:
        compile_network(network, run.accelerator.device)
    trained = Pretrainer(run, LanguageModelObjective(config.family, network)).train()
    summary = summarize(run, trained, tables)
    if trained.state.finished and is_main:
        if finish(config, run.inputs, network):
            folder.write_model(network, config.family, config)
        if trained.best is not trained.state.history[-1]:
            load_trained(network, trained.state.best_weights)
            finish(config, run.inputs, network)
            folder.write_best(network, config.family, config)
        write_text(folder.summary, json.dumps(summary.facts, indent=2) + "\n")
        folder.delete_checkpoints()
    run.accelerator.wait_for_everyone()
    return summary


def finish(config: PretrainConfig, inputs: Inputs, network: PreTrainedModel) -> bool:
    """Compute what the family computes after the training, from training windows; return whether it does."""
    import torch

    if config.family.finish is None:
        return False
    n_batches = min(config.steps, max(1, _FINISHING_BP // (config.batch_windows * config.window_bp)))
    batches = (inputs.train.batch(step, config.batch_windows).codes_BL for step in range(n_batches))
    token_of_code = torch.tensor(config.family.token_ids)
    device = next(network.parameters()).device
    network.eval()
    getattr(network, config.family.finish)(token_of_code[torch.from_numpy(c).long()].to(device) for c in batches)
    return True


_FINISHING_BP: Final = 1 << 20  # nucleotides, thousands per dimension of an embedding


def _start(config: PretrainConfig) -> Accelerator:
    """Start the accelerator, with ``--threads``.

    Raises:
        ConfigError: This machine does not support the precision, or the launch asks for a sharded model.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device is not None:
        choose_device(config.device)
    try:
        accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    except ValueError as error:
        raise ConfigError(f"--mixed-precision {config.mixed_precision} does not work here: {error}") from error
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ConfigError(
            f"the run was started with {accelerator.distributed_type.value}, but pretraining keeps the whole model on "
            "each process; start it with accelerate_configs/multi_gpu.yaml instead"
        )
    if config.mixed_precision == "bf16":
        refuse_emulation(accelerator.device)
    problem = missing_processes(os.environ, n_processes=accelerator.num_processes)
    if problem is not None and accelerator.is_main_process:
        log.warning("WARNING: %s", problem.replace("bend_hf.train", "bend_hf.pretrain"))
    return accelerator


def refuse_emulation(device: torch.device) -> None:
    """Check that a GPU computes in bfloat16 natively, as float32 is faster otherwise.

    Raises:
        ConfigError: It emulates bfloat16.
    """
    import torch

    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"--mixed-precision is bf16, but the GPU {device} does not compute in bfloat16 (compute capability 8.0 "
            "does); leave the flag out"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: parse flags, train, print the table. Return 1 if an input is invalid."""
    start_logging()
    try:
        config = parse_pretrain(argv)
        summary = run(config)
    except BendError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    report(summary, config)
    return 0


def report(summary: Summary, config: PretrainConfig) -> None:
    """Print the results on the main process."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        sys.stdout.write(as_text(summary, config) + "\n")


if __name__ == "__main__":
    sys.exit(main())
