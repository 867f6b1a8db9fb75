#!/bin/bash
# Several nodes under Slurm; submit it from the top of the project, with its own numbers before it where they differ:
#   sbatch --nodes 4 accelerate_configs/slurm.sh --task gene_finding --model dnabert2 --out results
# A job that is stopped goes on where it was when it is submitted again with the same flags.
#SBATCH --job-name=bend_hf
#SBATCH --nodes=2                # machines
#SBATCH --ntasks-per-node=1      # one launcher a machine; it starts a process for each GPU
#SBATCH --gpus-per-node=4        # GPUs a machine
#SBATCH --cpus-per-task=32       # cores for all processes of a machine
#SBATCH --time=24:00:00          # longest time
#SBATCH --requeue                # start again after a preemption
#SBATCH --output=%x-%j.log       # one log a job

set -euo pipefail

export MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)  # the first machine leads
export PORT=$((20000 + SLURM_JOB_ID % 20000))                                # two jobs on a machine do not meet
export WORLD=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))                          # processes in all

# SLURM_NODEID differs on each machine, so it is read there, within the single quotes.
srun --kill-on-bad-exit=1 bash -c 'accelerate launch \
  --config_file accelerate_configs/multi_node.yaml \
  --num_machines "$SLURM_NNODES" \
  --num_processes "$WORLD" \
  --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$MASTER" \
  --main_process_port "$PORT" \
  -m bend_hf.train --processes "$WORLD" "$@"' bend_hf "$@"
