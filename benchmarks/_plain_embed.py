"""Embed the windows of a BED file as a plain script does, with torch, transformers, pandas and pyfaidx.

    python benchmarks/_plain_embed.py windows.bed genome.fa checkpoint embeddings.npz

``benchmarks/startup.py`` compares ``bend-hf embed`` with it. Nothing of bend_hf is imported.
"""

import sys

import numpy as np
import pandas as pd
import torch
from pyfaidx import Fasta
from transformers import AutoModel, AutoTokenizer


def main(bed: str, genome: str, checkpoint: str, out: str) -> None:
    """Write the last hidden states of each window, one row per token without the first."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, add_pooling_layer=False).eval()
    fasta = Fasta(genome, as_raw=True, sequence_always_upper=True)
    rows = {}
    for number, row in pd.read_csv(bed, sep="\t").iterrows():
        sequence = fasta[row["chromosome"]][row["start"] : row["end"]]
        ids = tokenizer(sequence, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            rows[str(number)] = model(ids).last_hidden_state[0, 1:].numpy()
    np.savez(out, **rows)


if __name__ == "__main__":
    main(*sys.argv[1:5])
