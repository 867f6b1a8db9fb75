"""Training small language models on a genome: its regions, windows, masks, and the tables they are compared with.

>>> from bend_hf.training.pretraining.objectives import MASK
>>> MASK
5
"""
