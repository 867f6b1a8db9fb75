"""A page to try a metric: the same for every metric, copied into its Space next to the module.

``evaluate.utils.launch_gradio_widget`` would do, but it needs gradio 3. Run it in the folder of a built metric, with
gradio installed:

    python app.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import evaluate

HERE = Path(__file__).resolve().parent
CLASSES = ("0, 1, 2, 2, 1", "0, 1, 2, 1, -100")  # an example for metrics of class numbers
SCORES = ("0.1, 0.4, 0.4, 0.8", "0, 0, 1, 1")  # an example for metrics of scores


def load() -> evaluate.Metric:
    """Load the metric of this folder."""
    (module,) = [path for path in HERE.glob("*.py") if path.name != "app.py"]
    return evaluate.load(str(module))


def example(metric: evaluate.Metric) -> tuple[str, str]:
    """Give predictions and references to start with."""
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    return CLASSES if features["predictions"].dtype.startswith("int") else SCORES


def score(predictions: str, references: str) -> str:
    """Score lists as they are typed.

    Args:
        predictions: Comma-separated numbers, or one row of them per item such as ``[0.1, 0.9], [0.4, 0.2]``.
        references: Comma-separated numbers, or rows of them; -100 if a value is not to be scored.

    Returns:
        The result as indented JSON.
    """
    given = {"predictions": predictions, "references": references}
    values = {}
    for name, text in given.items():
        try:
            values[name] = json.loads(f"[{text}]")
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{name} cannot be read: {error}; write them as 0, 1, 2 or as [0.1, 0.9], [0.4, 0.2]"
            ) from None
    return json.dumps(load().compute(**values), indent=2)


def main() -> None:
    """Serve the page."""
    import gradio

    def result_or_error(predictions: str, references: str) -> str:
        try:
            return score(predictions, references)
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    metric = load()
    predictions, references = example(metric)
    card = re.sub(r"\A---\n.*?\n---\n", "", (HERE / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    gradio.Interface(
        fn=result_or_error,
        inputs=[
            gradio.Textbox(label="Predictions", value=predictions),
            gradio.Textbox(label="References", value=references),
        ],
        outputs=gradio.Textbox(label="Result"),
        title=metric.name,
        description=metric.info.description,
        article=card,
    ).launch()


if __name__ == "__main__":
    main()
