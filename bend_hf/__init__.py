"""BEND, the benchmark of DNA language models (ICLR 2024), in the Hugging Face ecosystem.

>>> import bend_hf
>>> bend_hf.__version__
'0.1.0'
"""

from __future__ import annotations

__version__ = "0.1.0"
