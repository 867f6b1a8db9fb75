"""Copy a trained bend-mini into the package: weights in float16 and the record of the training.

    python -m examples.bend_mini.pack OUT

``OUT`` is the output folder of ``python -m bend_hf.pretrain``; it is not changed. The weights of the skip-gram
objective are needed in training only and are left out. Paths in the recorded command are cut to file names.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from bend_hf.files import start_logging

PACKAGED = Path(__file__).resolve().parents[2] / "bend_hf" / "pretrained" / "bend-mini"
MAX_BYTES = 3_000_000
_TRAINING_ONLY = "around."  # prefix of the weights of the skip-gram objective
_KEPT_LOSSES = 500  # of the first steps; a test compares a retraining with them


def pack(out: Path, folder: Path = PACKAGED) -> int:
    """Write the model folder of the package.

    Args:
        out: Output folder of the pretraining.
        folder: Folder to write.

    Returns:
        Size of the weights in bytes.

    Raises:
        SystemExit: The training is not finished, or the weights are too large.
    """
    summary = out / "training" / "summary.json"
    if not summary.exists():
        raise SystemExit(
            f"{out} holds no finished training ({summary} is missing); run python -m bend_hf.pretrain first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to(torch.float16)
        for name, tensor in load_file(out / "model.safetensors").items()
        if not name.startswith(_TRAINING_ONLY)
    }
    target = folder / "model.safetensors"
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)
    if target.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{target} has {target.stat().st_size:,} bytes; the package holds at most {MAX_BYTES:,}")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(out / name, folder / name)
    facts = json.loads(summary.read_text(encoding="utf-8"))
    facts["command"] = [Path(word).name if word.startswith("/") else word for word in facts["command"]]
    facts["config"] = {
        name: Path(value).name if name in ("genome", "out") and value else value
        for name, value in facts["config"].items()
    }
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    losses = (out / "training" / "losses.csv").read_text(encoding="utf-8").splitlines()
    (folder / "first_losses.csv").write_text("\n".join(losses[: _KEPT_LOSSES + 1]) + "\n", encoding="utf-8")
    return target.stat().st_size


def main() -> None:
    """Write the model folder and print the size of the weights."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="output folder of python -m bend_hf.pretrain")
    print(f"{PACKAGED}: {pack(parser.parse_args().out):,} bytes of weights")


if __name__ == "__main__":
    main()
