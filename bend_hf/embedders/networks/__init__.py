"""Architectures of DNA language models that transformers does not have, in plain PyTorch, one file each.

In go token ids and a mask; out come hidden states and language-model scores, as the models of transformers return
them. Configurations and parameters are named as in the published checkpoints, so that these load without remote code.
``_layers`` and ``_language_model`` hold what several networks share; ``selected_tokens`` computes the last layer at a
few tokens only. To add an architecture, add a file with its configuration and its two models, and use it in a family of
``bend_hf.embedders``.
"""
