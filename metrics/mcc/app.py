"""A page to try the metric on a few labels.

Run it where gradio is installed, as a Space of this folder does:

    python app.py
"""

from __future__ import annotations

import json
from pathlib import Path

import evaluate

METRIC = str(Path(__file__).resolve().with_name("mcc.py"))


def score(predictions: str, references: str) -> str:
    """Score lists as they are typed.

    Args:
        predictions: Comma-separated class numbers, for example ``0, 1, 1``.
        references: Comma-separated class numbers, -100 where an item is not to be scored.

    Returns:
        The result as indented JSON.
    """
    given = {"predictions": predictions, "references": references}
    read = {}
    for what, text in given.items():
        try:
            read[what] = json.loads(f"[{text}]")
        except json.JSONDecodeError as error:
            raise ValueError(f"{what} cannot be read: {error}; write them as 0, 1, 2") from None
    return json.dumps(evaluate.load(METRIC).compute(**read), indent=2)


def main() -> None:
    """Serve the page."""
    import gradio

    def shown(predictions: str, references: str) -> str:
        try:
            return score(predictions, references)
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    gradio.Interface(
        fn=shown,
        inputs=[
            gradio.Textbox(label="Predictions", value="0, 1, 2, 2, 1"),
            gradio.Textbox(label="References", value="0, 1, 2, 1, -100"),
        ],
        outputs=gradio.Textbox(label="Result"),
        title="Matthews correlation coefficient",
        description="Class numbers from 0, with commas between. A reference of -100 is not scored.",
    ).launch()


if __name__ == "__main__":
    main()
