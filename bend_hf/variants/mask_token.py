"""Which token id hides a token from a masked language model, found where the family or its files say so.

>>> import json, tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "vocab.txt").write_text("[PAD]\\n[UNK]\\n[MASK]\\nACG\\n")
>>> mask_in_files(folder)
2
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bend_hf.embedders._base import Embedder

_TEXTS: Final = ("[MASK]", "<mask>")
# HyenaDNA's letters, which Caduceus took over, have no file (kuleshov-group/caduceus, tokenization_caduceus.py).
_BUILT_IN: Final = {"caduceus": 3}


def mask_token(embedder: Embedder) -> int | None:
    """The id of the mask; None where the model has none.

    Looked for as the attribute ``mask_id`` of the embedder, in its tokenizer, in the files of its checkpoint.
    """
    for holder, name in ((embedder, "mask_id"), (getattr(embedder, "_tokenizer", None), "mask_token_id")):
        found = getattr(holder, name, None)
        if isinstance(found, int):
            return found
    in_files = mask_in_files(Path(embedder.folder))
    if in_files is not None:
        return in_files
    model_type = getattr(getattr(embedder.model, "config", None), "model_type", "")
    return _BUILT_IN.get(str(model_type))


def mask_in_files(folder: Path) -> int | None:
    """The mask's id by ``vocab.txt`` or ``tokenizer.json``; None where neither names one."""
    vocabulary = folder / "vocab.txt"
    if vocabulary.is_file():
        words = vocabulary.read_text(encoding="utf-8").split()
        found = next((words.index(text) for text in _TEXTS if text in words), None)
        if found is not None:
            return found
    tokenizer = folder / "tokenizer.json"
    return _mask_in_tokenizer(json.loads(tokenizer.read_text(encoding="utf-8"))) if tokenizer.is_file() else None


def _mask_in_tokenizer(body: dict[str, Any]) -> int | None:
    for added in body.get("added_tokens") or []:
        if added.get("content") in _TEXTS:
            return int(added["id"])
    words = body.get("model", {}).get("vocab", {})
    if not isinstance(words, dict):
        words = {entry[0]: index for index, entry in enumerate(words)}
    return next((int(words[text]) for text in _TEXTS if text in words), None)
