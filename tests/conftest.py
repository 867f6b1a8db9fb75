"""What all tests share: caches of their own, no network, and a small genome.

The environment is set before anything of Hugging Face is imported, which reads it then and never again.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="bend_hf_tests_")
os.environ["HF_HOME"] = str(Path(_CACHE.name) / "huggingface")
os.environ["XDG_CACHE_HOME"] = str(Path(_CACHE.name) / "cache")
os.environ["BEND_HF_CACHE"] = str(Path(_CACHE.name) / "bend_hf")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("BEND_DATA_DIR", None)
for _name in ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_TOKEN"):
    os.environ.pop(_name, None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; some tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
HAS_CUDA = any(Path("/dev", name).exists() for name in ("nvidiactl", "nvidia0", "dxg"))
if HAS_CUDA:  # tests compute on the CPU, whose numbers they state, unless they carry the mark cuda
    import torch

    # The workers of pytest-xdist inherit that their parent hides the devices below.
    given = os.environ.setdefault("BEND_TESTS_CUDA_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    if given == "all":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = given
    HAS_CUDA = torch.cuda.is_available()
    if HAS_CUDA:
        torch.cuda.init()
        torch.cuda.device_count()  # kept from now on
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for processes that tests start; this one has seen its devices
    os.environ["ACCELERATE_USE_CPU"] = "true"


@pytest.fixture(autouse=True)
def _computes_on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("cuda") is not None:
        if not HAS_CUDA:
            pytest.skip("there is no CUDA device")
        monkeypatch.delenv("ACCELERATE_USE_CPU")
    elif HAS_CUDA:
        monkeypatch.setattr("bend_hf.embedders._device.best_device", lambda: "cpu")


@pytest.fixture(scope="session", autouse=True)
def _caches_go_away() -> Iterator[None]:
    yield
    _CACHE.cleanup()


@pytest.fixture(autouse=True)
def _heads_of_files_go_away() -> Iterator[None]:
    """Take the heads of files that a test named out of the registry, which lives as long as the process."""
    yield
    module = sys.modules.get("bend_hf.training.heads")
    if module is not None and module.HEADS._of_files:
        module.HEADS._of_files.clear()
        for found in ("_declared", "_key_of"):  # looked up anew when next asked for
            module.HEADS.__dict__.pop(found, None)
