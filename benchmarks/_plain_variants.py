"""Score the variants of a BED file as a plain script does, with torch, transformers, pandas and pyfaidx.

    python benchmarks/_plain_variants.py variants.bed genome.fa checkpoint scores.csv            # cosine distances
    python benchmarks/_plain_variants.py variants.bed genome.fa checkpoint scores.csv likelihood # and likelihoods

As in the scripts of BEND, each allele is one forward pass, its embeddings are repeated per nucleotide, and SciPy
compares those at the variant. Likelihoods are a further pass over the sites with the token of the variant masked.
``benchmarks/startup.py`` compares ``bend-hf variants`` with it. Nothing of bend_hf is imported.
"""

import sys

import numpy as np
import pandas as pd
import torch
from pyfaidx import Fasta
from scipy.spatial.distance import cosine
from transformers import AutoModelForMaskedLM, AutoTokenizer

SIDE_BP = 256
K = 6


def main(bed: str, genome: str, checkpoint: str, out: str, *more: str) -> None:
    """Write the distance at each variant, and its log-likelihood ratio and the entropy of its site if asked for."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint).eval()
    fasta = Fasta(genome, as_raw=True, sequence_always_upper=True)
    table = pd.read_csv(bed, sep="\t")

    def alleles(row: pd.Series, base: str) -> str:
        left = fasta[row["chromosome"]][row["start"] - SIDE_BP : row["start"]]
        return left + base + fasta[row["chromosome"]][row["end"] : row["end"] + SIDE_BP]

    def embedding(sequence: str) -> np.ndarray:
        ids = tokenizer(sequence, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            rows = model.base_model(ids).last_hidden_state[0, 1:].numpy()
        bp = [len(token) for token in tokenizer.convert_ids_to_tokens(ids[0, 1:].tolist())]
        return np.repeat(rows, bp, axis=0)[SIDE_BP]

    distances = [
        cosine(embedding(alleles(row, row["ref"])), embedding(alleles(row, row["alt"]))) for _, row in table.iterrows()
    ]
    table = table.assign(distance=distances)
    if more == ("likelihood",):
        vocabulary, place = tokenizer.get_vocab(), 1 + SIDE_BP // K
        found = []
        for _, row in table.iterrows():
            sequence = alleles(row, row["ref"])
            ids = tokenizer(sequence, return_tensors="pt")["input_ids"]
            ids[0, place] = tokenizer.mask_token_id
            with torch.inference_mode():
                logs = model(ids).logits[0, place].log_softmax(0)
            kmer, at = sequence[SIDE_BP - SIDE_BP % K :][:K], SIDE_BP % K
            of_bases = {base: logs[vocabulary[kmer[:at] + base + kmer[at + 1 :]]].item() for base in "ACGT"}
            shares = np.exp(np.array(list(of_bases.values())))
            shares /= shares.sum()
            found.append((of_bases[row["alt"]] - of_bases[row["ref"]], -(shares * np.log2(shares)).sum()))
        table = table.assign(log_likelihood_ratio=[one for one, _ in found], entropy=[one for _, one in found])
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
