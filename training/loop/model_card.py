"""Reports of a finished training: metrics.json, learning curves, attention heat maps, the model card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import keras

from keras_attention.files import write_json, write_text
from keras_attention.metrics.plots import attention_heat_map, learning_curves
from keras_attention.run_directory import RunDirectory
from keras_attention.translation.translator import Translator

from ..config import TrainConfig

if TYPE_CHECKING:
    from .trainer import Progress

HEAT_MAPS = 4


def write_reports(run: RunDirectory, settings: TrainConfig, progress: Progress) -> None:
    """metrics.json, plots/curves.png, plots/attention-*.png and README.md; needs at least one epoch."""
    best = progress.history[progress.plateau.best_epoch or 0]
    write_json(
        run.path / "metrics.json",
        {"best": best, "epochs": progress.epoch, "minutes": round(progress.seconds / 60, 2), "task": run.task},
    )
    learning_curves(run.path / "plots" / "curves.png", progress.history, settings.monitor, settings.loss_name)
    examples = write_heat_maps(run)
    write_text(run.path / "README.md", model_card(run, settings, best, examples, progress))


def write_heat_maps(run: RunDirectory) -> list[tuple[str, str]]:
    """Draw the attention over the first sample sentences (none without attention); returns (source, output) of each."""
    translator = Translator.load(run)
    samples = [text for text in run.samples() if translator.problem(text) is None][:HEAT_MAPS]
    examples = []
    for number, (text, found) in enumerate(zip(samples, translator.translate(samples), strict=True), 1):
        best = found[0]
        examples.append((text, best.text))
        if run.config.attention != "none":
            path = run.path / "plots" / f"attention-{number}.png"
            attention_heat_map(path, best.alignment, best.source_tokens, best.tokens, f"{text}\n→ {best.text}")
    return examples


def model_card(
    run: RunDirectory, settings: TrainConfig, best: dict[str, Any], examples: list[tuple[str, str]], progress: Progress
) -> str:
    """The text of README.md: what the model is, how good it is, how to use it."""
    training = run.metadata["training"]
    data = training["data"]
    name = training["recipe"] or run.path.name
    scores = [(key.removeprefix("val_"), value) for key, value in best.items() if key.startswith("val_")]
    table = "\n".join(f"| {key} | {value:.4g} |" for key, value in scores)
    shown = "\n".join(f"| {_cell(source)} | {_cell(output)} |" for source, output in examples)
    maps = [] if run.config.attention == "none" else range(1, len(examples) + 1)
    pictures = "\n".join(f"![attention](plots/attention-{number}.png)" for number in maps)
    text = examples[0][0] if examples else "…"
    model = json.dumps(run.config.to_dict(), indent=2)
    return f"""# {name}

A recurrent encoder-decoder with Luong attention (`{run.config.attention}`), trained by keras-luong.
Task: {run.task}. {data["train"]} training sentences, {data["validation"]} for validation;
{progress.epoch} epochs, {progress.seconds / 60:.1f} minutes, Keras {keras.__version__} on {keras.backend.backend()},
seed {settings.seed}. End of training: {progress.finished(settings)}.

| on validation text, greedy, epoch {best["epoch"]} | |
|---|---|
{table}

## Use

```sh
keras-attention translate . < sentences.txt
keras-attention export . --to saved_model tflite onnx --output artefacts
```

```python
import keras
import keras_attention  # registers the layers

model = keras.models.load_model("model.keras")

from keras_attention.translation.translator import Translator

translator = Translator.load(".")
print(translator.translate([{json.dumps(text, ensure_ascii=False)}])[0][0].text)
```

## Examples

| source | output |
|---|---|
{shown}

{pictures}

## Training

![learning curves](plots/curves.png)

```json
{model}
```

Settings: `{json.dumps(settings.to_dict())}`
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
