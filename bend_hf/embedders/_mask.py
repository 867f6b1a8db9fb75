"""The token id that hides a token from a masked language model, where a checkpoint's files name it.

``LoadedModel.mask_id`` takes it from here unless the family's ``_load`` set it, as one without such files does.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "vocab.txt").write_text("[PAD]\\n[UNK]\\n[MASK]\\nACG\\n")
>>> mask_in_files(folder)
2
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_TEXTS: Final = ("[MASK]", "<mask>")


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
