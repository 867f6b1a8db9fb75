"""A page to try the metric on a few numbers.

Run it where gradio is installed, as a Space of this folder does:

    python app.py
"""

from __future__ import annotations

import json
from pathlib import Path

import evaluate

METRIC = str(Path(__file__).resolve().with_name("calibration.py"))


def score(predictions: str, references: str) -> str:
    """Score lists as they are typed.

    Args:
        predictions: Comma-separated probabilities, or rows of them such as ``[0.1, 0.9], [0.4, 0.2]``.
        references: Comma-separated 0 or 1, or rows of them; -100 where a cell is not to be scored.

    Returns:
        The result as indented JSON.
    """
    given = {"predictions": predictions, "references": references}
    read = {}
    for what, text in given.items():
        try:
            read[what] = json.loads(f"[{text}]")
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{what} cannot be read: {error}; write them as 0.1, 0.9 or [0.1, 0.9], [0.4, 0.2]"
            ) from None
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
            gradio.Textbox(label="Predictions", value="0.1, 0.4, 0.6, 0.9"),
            gradio.Textbox(label="References", value="0, 1, 0, 1"),
        ],
        outputs=gradio.Textbox(label="Result"),
        title="Calibration",
        description="Probabilities and 0/1 references, with commas between, rows in brackets for many labels. "
        "A reference of -100 is not scored.",
    ).launch()


if __name__ == "__main__":
    main()
