"""What is installed here, which device there is, and where each task's data would come from.

>>> next(iter(status())).startswith("bend_hf ")
True
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from bend_hf import __version__
from bend_hf.data.sources import default_data
from bend_hf.errors import BendError
from bend_hf.tasks import TASKS

_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "pyarrow", "numpy")


def status() -> Iterator[str]:
    """One line a fact."""
    yield f"bend_hf {__version__}, Python {platform.python_version()}, {platform.platform()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed; run 'make setup'"
    yield from _devices()
    for task in TASKS:
        try:
            yield default_data(task).message
        except BendError as error:
            yield f"{task.key}: {error}"


def _devices() -> Iterator[str]:
    try:
        import torch
    except ImportError:
        return
    for index in range(torch.cuda.device_count()):
        yield f"device cuda:{index}: {torch.cuda.get_device_name(index)}"
    yield f"device cpu: {torch.get_num_threads()} threads"
