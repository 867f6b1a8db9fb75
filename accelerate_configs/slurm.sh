#!/bin/bash
# Several nodes under Slurm. Submit it from the top of the repository; options before the script override its own:
#   sbatch --nodes 4 accelerate_configs/slurm.sh --task gene_finding --model dnabert2 --out results
# An interrupted job resumes when you submit it again with the same flags. On a partition without GPUs, one process runs on
# each machine:
#   sbatch --partition cpu --gpus-per-node 0 accelerate_configs/slurm.sh --task gene_finding --model onehot --out results
#SBATCH --job-name=bend_hf
#SBATCH --nodes=2                # number of machines
#SBATCH --ntasks-per-node=1      # one launcher per machine; it starts one process per GPU
#SBATCH --gpus-per-node=4        # GPUs per machine
#SBATCH --cpus-per-task=32       # cores per machine, for all its processes
#SBATCH --time=24:00:00          # time limit
#SBATCH --requeue                # restart after a preemption
#SBATCH --output=%x-%j.log       # one log per job

set -euo pipefail

export MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)  # the first machine runs the main process
export PORT=$((20000 + SLURM_JOB_ID % 20000))                                # differs between jobs on one machine
GPUS=${SLURM_GPUS_ON_NODE:-0}                                                # Slurm sets it only if the job has GPUs
export WORLD=$((SLURM_NNODES * (GPUS > 0 ? GPUS : 1)))                       # number of processes

# The single quotes make each machine read its own SLURM_NODEID. Without GPUs, the processes meet over gloo.
srun --kill-on-bad-exit=1 bash -c 'accelerate launch \
  --config_file accelerate_configs/multi_node.yaml \
  --num_machines "$SLURM_NNODES" \
  --num_processes "$WORLD" \
  --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$MASTER" \
  --main_process_port "$PORT" \
  -m bend_hf.train --processes "$WORLD" "$@"' bend_hf "$@"
