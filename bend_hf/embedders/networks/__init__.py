"""Architectures of DNA language models that transformers does not hold natively, a file each."""
