"""The formats that `export` writes: which one is meant, and whether its packages are there."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class FormatName(NamedTuple):
    """How a format is recognised.

    Attributes:
        title: what messages and the report call it.
        suffix: what its files end in; `""` of a folder.
        needs: the packages to write and to run it, by the name that Python imports; each is one of the
            extra of tfbn that is called as the format is.
    """

    title: str
    suffix: str
    needs: tuple[str, ...] = ()


# By the names that Keras has for them.
FORMATS = {
    "tf_saved_model": FormatName("SavedModel", ""),
    "litert": FormatName("LiteRT", ".tflite", ("ai_edge_litert",)),
    "onnx": FormatName("ONNX", ".onnx", ("onnx", "onnxruntime", "tf2onnx")),
    "openvino": FormatName("OpenVINO", ".xml", ("openvino",)),
}

# What else models are written to, and would be taken for. OpenVINO finds its weights by its suffix, too.
NOT_WRITTEN = {".keras", ".h5", ".hdf5", ".pb", ".pt", ".pt2", ".ort", ".mlpackage"}


def format_of(path: str | os.PathLike[str], told: str | None = None) -> str:
    """The name of the format that a path ends in, or that is told.

    Raises:
        TypeError: it is no path.
        ValueError: there is none of the name, or the path says another one.
        ImportError: packages are missing that it needs.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(
            "path must be where to write to, a string or pathlib.Path, received "
            f"{type(path).__name__}. Write export(model, path)."
        )
    if told is not None and told not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, received {told!r}.")
    suffix = Path(os.fsdecode(path)).suffix
    said = {known.suffix: name for name, known in FORMATS.items() if suffix}.get(suffix)
    name = told or said or "tf_saved_model"
    title, wanted, needs = FORMATS[name]
    if said not in (None, name):
        raise ValueError(
            f"format={told!r} is {title}, and {suffix} is for {FORMATS[str(said)].title}, received "
            f"{os.fsdecode(path)}. Leave format= out, or choose another path."
        )
    if suffix in NOT_WRITTEN or (name == "openvino" and said is None):
        ends = f"A file of {title} ends in {wanted}" if wanted else f"A {title} is a folder"
        raise ValueError(f"{ends}, received {os.fsdecode(path)}. export writes {_all()}.")
    if missing := [package for package in needs if find_spec(package) is None]:
        raise ImportError(
            f"{title} needs {', '.join(missing)}, not installed here: pip install 'tfbn[{name}]'."
        )
    return name


def _all() -> str:
    files = [f"{known.suffix} ({known.title})" for known in FORMATS.values() if known.suffix]
    return f"SavedModels and {', '.join(files)}; of other formats, tfbn.fold(model)[0].save or .export"
