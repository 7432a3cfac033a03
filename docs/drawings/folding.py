"""Draws docs/folding.svg, the worked example of docs/how-folding-works.md; computes all its numbers.

python docs/drawings/folding.py
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import keras
import numpy as np

import tfbn
from tfbn.batch_norms import inference_affine

HERE = Path(__file__).parent

WIDTH, HEIGHT = 900, 700
BOX_WIDTH, LINE = 178, 17  # of a box, and of a line of text in it
COLUMNS = {"before": 50, "after": 510}  # the left edges of the two models
CENTER, LEFT, RIGHT = 95, 0, 190  # of boxes, from the edge of their model
ROWS = {
    "image": 70,
    "conv": 130,
    "dense": 130,
    "add": 250,
    "first": 310,
    "relu": 410,
    "second": 470,
    "head": 570,
    "output": 660,
}
PLACES = {"conv": LEFT, "dense": RIGHT}
PLAIN, CHANGED, REMOVED = ("#f2f2f2", "#888888"), ("#e3eefb", "#1f5fa8"), ("#fdebdd", "#d1600f")
STYLE = "font-family: Helvetica, Arial, sans-serif; font-size: 13px"


def example() -> keras.Model:
    """A convolution and a Dense layer, added up; a batch norm before a ReLU, and one after it."""
    layers = keras.layers
    image = keras.Input((4, 4, 1), name="image")
    conv = layers.Conv2D(2, 1, name="conv")(image)
    dense = layers.Dense(2, name="dense")(image)
    x = layers.Add(name="add")([conv, dense])
    x = tfbn.BatchNorm(epsilon=0, name="first")(x)
    x = layers.ReLU(name="relu")(x)
    x = tfbn.BatchNorm(epsilon=0, name="second")(x)
    model = keras.Model(image, layers.Conv2D(1, 1, name="head")(x))
    weights = {
        "conv": [[[[[1, 3]]]], [0, 1]],  # kernel, bias
        "dense": [[[2, -1]], [1, 0]],
        "first": [[1, 1], [0, 1], [1, 2], [4, 0.25]],  # gamma, beta, moving mean and variance
        "second": [[1, 1], [0, 0], [0.5, 1], [0.25, 4]],
        "head": [[[[[1], [4]]]], [0]],
    }
    for name, arrays in weights.items():
        model.get_layer(name).set_weights([np.array(array, "float32") for array in arrays])
    return model


def numbers(array: object) -> str:
    """The two channels' numbers, or the only number."""
    text = [f"{number:g}".replace("-", "−") for number in np.ravel(array)]
    return text[0] if len(text) == 1 else f"({', '.join(text)})"


def drawn(model: keras.Model) -> list[str]:
    """The names of the layers from top to bottom, the same order in every version of Keras."""
    names = {layer.name for layer in model.layers}
    return [name for name in ROWS if name in names]


def values(model: keras.Model) -> dict[str, str]:
    """What each layer makes of an image of ones, at any pixel."""
    outputs = {name: model.get_layer(name).output for name in drawn(model)[1:]}
    found = keras.Model(model.input, outputs).predict(np.ones((1, 4, 4, 1)), verbose=0)
    return {name: numbers(value[0, 0, 0]) for name, value in found.items()}


def described(layer: keras.layers.Layer) -> list[str]:
    """The lines of a layer's box."""
    if isinstance(layer, tfbn.BatchNorm):
        scale, offset = inference_affine(layer)
        return [f"{layer.name}: BatchNorm", f"scale {numbers(scale)}", f"offset {numbers(offset)}"]
    if isinstance(layer, keras.layers.InputLayer):
        return [f"{layer.name}: {layer.output.shape[-1]} channel"]
    title = f"{layer.name}: {type(layer).__name__}"
    if not layer.weights:
        return [title]
    kernel, bias = layer.get_weights()
    return [title, f"kernel {numbers(kernel)}", f"bias {numbers(bias)}"]


def text(x: float, y: float, line: str, style: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" style="{style}">{escape(line)}</text>'


def box(x: float, y: float, lines: list[str], colors: tuple[str, str]) -> list[str]:
    """A rectangle around lines of text, the first of which is bold."""
    fill, border = colors
    height = LINE * len(lines) + 12
    rectangle = f'x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{height}" rx="5"'
    found = [f'<rect {rectangle} fill="{fill}" stroke="{border}" stroke-width="1.5"/>']
    for number, line in enumerate(lines):
        bold = "" if number else "font-weight: bold"
        found.append(text(x + BOX_WIDTH / 2, y + 18 + LINE * number, line, bold))
    return found


def arrow(points: list[tuple[float, float]], style: str, marker: str) -> str:
    path = "M " + " L ".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="{path}" fill="none" style="{style}" marker-end="url(#{marker})"/>'


def model_drawing(model: keras.Model, side: str, changed: list[str]) -> list[str]:
    """One model from top to bottom: a box for each layer, and values beside the arrows between them."""
    left, value = COLUMNS[side], values(model)
    boxes = {name: described(model.get_layer(name)) for name in drawn(model)}
    found = []
    for name, lines in boxes.items():
        colors = CHANGED if name in changed else REMOVED if name in ("first", "second") else PLAIN
        found += box(left + PLACES.get(name, CENTER), ROWS[name], lines, colors)

    def bottom(name: str) -> float:
        return ROWS[name] + LINE * len(boxes[name]) + 12

    def connect(above: str, below: str, shift: float = 0) -> None:
        """Draw an arrow from one box to another, and the value beside it."""
        x, end = left + PLACES.get(above, CENTER) + BOX_WIDTH / 2, ROWS[below] - 2
        target = left + PLACES.get(below, CENTER) + BOX_WIDTH / 2 + shift
        found.append(arrow([(x, bottom(above)), (target, end)], "stroke: #555555", "plain"))
        beside = -8 if target > x or shift < 0 else 8
        anchor = "end" if beside < 0 else "start"
        middle = (bottom(above) + end) / 2
        if above == "image":
            return
        found.append(text((x + target) / 2 + beside, middle + 5, value[above], "fill: #555555", anchor))

    connect("image", "conv")
    connect("image", "dense")
    connect("conv", "add", shift=-20)
    connect("dense", "add", shift=20)
    chain = [name for name in ("add", "first", "relu", "second", "head") if name in boxes]
    for above, below in pairwise(chain):
        connect(above, below)
    x = left + CENTER + BOX_WIDTH / 2
    found.append(arrow([(x, bottom("head")), (x, ROWS["output"])], "stroke: #555555", "plain"))
    found.append(text(x, ROWS["output"] + 18, f"output {value['head']}", "font-weight: bold"))
    return found


def moves() -> list[str]:
    """The moves: the first batch norm backward, to conv and dense; the second forward, to head."""
    left, style = COLUMNS["before"], "stroke: #d1600f; stroke-width: 2; stroke-dasharray: 5 4"
    label = "fill: #d1600f; font-style: italic"
    center, far = left + CENTER, left + CENTER + BOX_WIDTH
    return [
        arrow([(center, 345), (left + 14, 345), (left + 14, 196)], style, "move"),
        arrow([(far, 345), (left + RIGHT + 164, 345), (left + RIGHT + 164, 196)], style, "move"),
        text(center - 8, 338, "backward", label, "end"),
        text(center - 8, 364, "scale, offset", label, "end"),
        text(far + 8, 338, "backward", label, "start"),
        text(far + 8, 364, "scale", label, "start"),
        arrow([(far, 502), (far + 40, 502), (far + 40, 602), (far + 4, 602)], style, "move"),
        text(far + 48, 548, "forward", label, "start"),
        text(far + 48, 566, "scale, offset", label, "start"),
    ]


def draw() -> str:
    """The drawing as the text of an SVG file."""
    model = example()
    folded, report = tfbn.fold(model)
    changed = sorted({path for entry in report.folded for path in entry.into})
    markers = [
        f'<marker id="{name}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{color}"/></marker>'
        for name, color in (("plain", "#555555"), ("move", "#d1600f"))
    ]
    heading = "font-size: 16px; font-weight: bold"
    center = CENTER + BOX_WIDTH / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" style="{STYLE}" role="img">',
        "<title>A model with two batch norms, and the folded model with none</title>",
        "<defs>",
        *markers,
        "</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(COLUMNS["before"] + center, 30, "model", heading),
        text(COLUMNS["after"] + center, 30, "tfbn.fold(model)", heading),
        text(WIDTH / 2, 56, "beside arrows: values for an image of ones", "fill: #555555"),
        *model_drawing(model, "before", []),
        *moves(),
        *model_drawing(folded, "after", changed),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    HERE.parent.joinpath("folding.svg").write_text(draw())
