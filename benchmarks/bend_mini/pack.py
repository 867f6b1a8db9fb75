"""Puts a trained model into the package, as bend-mini: weights in float16, and the record of its training.

What only training needs, the part that tells the words around a place, stays behind.

    python -m benchmarks.bend_mini.pack OUT

``OUT`` is the folder that ``bend_hf.pretrain`` wrote; it is not changed. Paths in the command are cut to file names.
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
MOST_BYTES = 3_000_000
_STAYS = "around."
_KEPT_LOSSES = 500  # of the first steps, which a retraining is compared with


def pack(out: Path, folder: Path = PACKAGED) -> int:
    """Writes the folder of the package; returns the bytes of the weights.

    Raises:
        SystemExit: The training is not over, or the weights are too large.
    """
    summary = out / "training" / "summary.json"
    if not summary.exists():
        raise SystemExit(f"{out} holds no finished training: {summary} is missing")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to(torch.float16)
        for name, tensor in load_file(out / "model.safetensors").items()
        if not name.startswith(_STAYS)
    }
    target = folder / "model.safetensors"
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)
    if target.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{target} has {target.stat().st_size:,} bytes; at most {MOST_BYTES:,} may travel along")
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
    """Packs, and says how large it is."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    print(f"{PACKAGED}: {pack(parser.parse_args().out):,} bytes of weights")


if __name__ == "__main__":
    main()
