"""Parts of error messages: other libraries' errors, quoted; what was given instead of a model; lists."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

LONGEST = 240  # characters of a quotation

# What quotations leave out: bold print, lists of all arguments and whole configurations (Keras), and
# names of functions and kernels (TensorFlow).
NOISE = re.compile(
    r"\x1b\[\d*m|\{\{function_node [^}]*\}\} ?|\[Op:\w+\]"
    r"|Arguments received by .*|Full object config: .*",
    re.DOTALL,
)


SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")  # what a SavedModel's folder has one of


def is_graph(path: Any) -> bool:
    """Whether a path is a SavedModel's folder, or a file that may be a graph of TensorFlow's."""
    parts = (os.path.join(path, name) for name in SAVED_MODELS)
    saved = any(map(os.path.isfile, parts))
    return saved or (os.path.isfile(path) and os.fsdecode(path).endswith(".pb"))


def other_file(path: Any) -> str | None:
    """Which other file of TensorFlow's a path is, and what to do with it; `None` if it is none."""
    path = os.fsdecode(path)
    path = os.path.dirname(path) if os.path.basename(path) == "saved_model.pb" else path
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        return (
            "this is a SavedModel, which holds operations and no layers. tfbn.export(path, out) folds "
            "it; in Keras, use it as keras.layers.TFSMLayer(path, call_endpoint='serving_default')"
        )
    if path.endswith((".pb", ".pbtxt")):
        return (
            "this is a graph of TensorFlow, which holds operations and no layers. tfbn.export(path, "
            "out) folds it; or take the model that it was made of"
        )
    parts = (".index", ".meta", ".data-00000-of-00001")
    if path.endswith(parts) or os.path.exists(f"{path}.index"):
        return (
            "this belongs to a TensorFlow checkpoint, which holds variables and no layers. Make the "
            "model in code, and load them with tfbn.compat.load_checkpoint(path, model)"
        )
    if os.path.isfile(os.path.join(path, "checkpoint")):
        return (
            "this is a folder of TensorFlow checkpoints, which hold variables and no layers. Make the "
            "model in code, and load them with tfbn.compat.load_checkpoint(path, model)"
        )
    return None


def no_model(value: Any) -> str:
    """What was received instead of a Keras 3 model, and what to do with it."""
    kind = type(value)
    received = f"received {kind.__name__}"
    if kind.__module__.startswith("tf_keras.") or any(
        base.__module__.startswith("tf_keras.") for base in kind.__mro__
    ):
        return (
            f"{received} of tf_keras, which is Keras 2. Save it, model.save('old.keras'), and load that "
            "with tfbn.compat.load_model('old.keras')."
        )
    if isinstance(value, (str, bytes, os.PathLike)):
        other = other_file(value)
        if other is not None:
            return f"{received} {os.fsdecode(value)!r}: {other}."
        if not os.path.exists(value):
            return (
                f"{received}: {os.fsdecode(value)!r}, where there is nothing. Check the path; a Keras "
                "model is loaded first, with keras.models.load_model."
            )
        return (
            f"{received}: {value!r}. Load it first, with keras.models.load_model, or with "
            "tfbn.compat.load_model if Keras 1 or 2 wrote it."
        )
    if hasattr(value, "signatures") and kind.__module__.startswith("tensorflow."):
        return (
            f"{received}, a loaded SavedModel, which has functions and no layers. tfbn.export(path, "
            "out) folds it; what is measured are Keras models."
        )
    return f"{received}: {value!r}. Pass a model; one in a file is loaded with keras.models.load_model."


def one_line(error: Exception) -> str:
    """The error's message in one line, shortened if it is long; the name of its class if it is empty."""
    # Keras' text around the error of a layer that cannot be loaded is longer than the error.
    text = str(error).rpartition("Exception encountered: ")[2]
    line = " ".join(NOISE.sub("", text).split()) or type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rstrip()} …"


def join_some(names: Sequence[str], separator: str = ", ", most: int = 10) -> str:
    """The first `most` names, joined for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
