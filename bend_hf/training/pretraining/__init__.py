"""Pretrain a language model on the windows of a genome.

In: a FASTA and a configuration (``config``). Out: a model folder that the embedders load (``run_folder``) and a summary
with its perplexity (``summary``, ``ngram_baseline``). ``run`` is the entry point; ``regions``, ``splits``, ``windows``
and ``data`` say what is read, ``objectives`` what is predicted, and ``trainer`` how it differs from the training of a
head. A new kind of model is one file in ``families``.
"""
