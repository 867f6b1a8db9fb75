"""Trains a DNA language model from nothing on a FASTA, and leaves a folder that the embedders load.

    accelerate launch -m bend_hf.pretrain --model convnet --genome GRCh38.fa --out my-convnet
    python -m bend_hf.pretrain --model awdlstm --genome GRCh38.fa --out my-lstm --steps 2000 --window-bp 256

A run that is killed goes on where it was when the same command is given again, to the same bits.
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
from bend_hf.training.launch import missing_processes, run_on_main_process
from bend_hf.training.pretraining.config import PretrainConfig, parse_pretrain
from bend_hf.training.pretraining.data import Inputs, open_inputs
from bend_hf.training.pretraining.run_folder import RunFolder
from bend_hf.training.pretraining.summary import Summary, as_text, read_summary, summarise, tables_beside

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def run(config: PretrainConfig) -> Summary:
    """Trains, or goes on training, or reads what an earlier run left that is over.

    Raises:
        BendError: An input is bad; nothing was trained then.
    """
    began = time.perf_counter()
    config = config.resolved()
    assert config.out is not None
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
            log.info("%s is trained already", config.out)
            return read_summary(folder)
        return _train(config, accelerator, network, inputs, folder, began)
    finally:
        if lease is not None:
            lease.release()


def _train(
    config: PretrainConfig,
    accelerator: Accelerator,
    network: PreTrainedModel,
    inputs: Inputs,
    folder: RunFolder,
    began: float,
) -> Summary:
    """The training itself, in a folder that is its own."""
    import json

    from bend_hf.training.checkpoints import load_trained
    from bend_hf.training.pretraining.objectives import Learner
    from bend_hf.training.pretraining.trainer import Pretrainer

    tables = tables_beside(config, inputs, folder) if accelerator.is_main_process else ()
    accelerator.wait_for_everyone()
    n_parameters = sum(weight.numel() for weight in network.parameters())
    if accelerator.is_main_process:
        log.info(
            "%s of %s parameters; %s windows to draw from, %s left out for their N; %s windows to validate on",
            config.family.key,
            f"{n_parameters:,}",
            f"{inputs.train.n_windows:,}",
            f"{inputs.train.n_rich:,}",
            f"{len(inputs.held_out_BL):,}",
        )
    trained = Pretrainer(config, inputs, Learner(config.family, network), accelerator, folder).train()
    summary = summarise(config, inputs, network, trained, tables, accelerator, out=folder.out, began=began)
    if trained.state.finished and accelerator.is_main_process:
        if finish(config, inputs, network):
            folder.write_model(network, config.family, config)
        if trained.best is not trained.state.history[-1]:
            load_trained(network, trained.state.best_weights)
            finish(config, inputs, network)
            folder.write_best(network, config.family, config)
        write_text(folder.summary, json.dumps(summary.facts, indent=2) + "\n")
        folder.forget_position()
    accelerator.wait_for_everyone()
    return summary


def finish(config: PretrainConfig, inputs: Inputs, network: PreTrainedModel) -> bool:
    """Computes what the family computes when training is over, from windows that were trained on; whether it does."""
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


_FINISHING_BP: Final = 1 << 20  # thousands of nucleotides for each direction of a row


def _start(config: PretrainConfig) -> Accelerator:
    """The accelerator, with as many threads as were asked for.

    Raises:
        ConfigError: The precision does not exist on this machine, or the model is to be spread over processes.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        accelerator = Accelerator(mixed_precision=config.mixed_precision)
    except ValueError as error:
        raise ConfigError(f"--mixed-precision {config.mixed_precision} does not work here: {error}") from error
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise ConfigError(
            f"this run was started with {accelerator.distributed_type.value}, but each process here holds the whole "
            f"model; launch it without"
        )
    if config.mixed_precision == "bf16":
        refuse_emulation(accelerator.device)
    problem = missing_processes(os.environ, n_processes=accelerator.num_processes)
    if problem is not None and accelerator.is_main_process:
        log.warning("WARNING: %s", problem.replace("bend_hf.train", "bend_hf.pretrain"))
    return accelerator


def refuse_emulation(device: torch.device) -> None:
    """Makes sure that a GPU computes in bfloat16 by itself, as otherwise float32 is quicker.

    Raises:
        ConfigError: It does not.
    """
    import torch

    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"--mixed-precision bf16: the GPU {device} has no arithmetic of bfloat16 (compute capability 8.0 has it); "
            f"leave the flag out"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command: parses flags, trains, prints the table; 1 where an input was bad."""
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
    """Prints what came of it, on the main process."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        sys.stdout.write(as_text(summary, config) + "\n")


if __name__ == "__main__":
    sys.exit(main())
