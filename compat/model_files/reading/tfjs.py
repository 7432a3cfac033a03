"""Layers models of TensorFlow.js: the JSON of Keras 2, and weights in shards beside it."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import Any

import numpy as np

from ..errors import LegacyModelError
from .architecture import LayerConfig, ModelConfig, layer_config, model_config
from .archive import Tree, group_names

MANIFEST = "weightsManifest"
_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint16": "<u2", "uint8": "u1"}
_MOST_SHARDS = 1 << 16


def topology(raw: dict[str, Any]) -> dict[str, Any] | None:
    """What Keras would have written as its JSON; `None` where this is another file.

    Raises:
        LegacyModelError: a graph model, which has no layers.
    """
    if raw.get("format") == "graph-model":
        raise LegacyModelError(
            "is a graph model of TensorFlow.js, which has operations and no layers. Convert the model "
            "that it was made of"
        )
    found = raw.get("modelTopology")
    if not isinstance(found, dict) or MANIFEST not in raw:
        return None
    config = found.get("model_config", found)
    return dict(config) if isinstance(config, dict) else None


def keras_version(raw: dict[str, Any]) -> str:
    """The release of Keras: the one whose layers TensorFlow.js follows, where it made the model."""
    stated = raw["modelTopology"].get("keras_version")
    return stated if isinstance(stated, str) and stated[:1].isdigit() else "2.2.4-tf"


def weights(path: str, raw: dict[str, Any], config: dict[str, Any]) -> Tree:
    """The arrays of the model, by layer."""
    by_layer: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, array in _arrays(os.path.dirname(path), raw[MANIFEST]):
        by_layer[name].append(array)
    leaves = _Leaves(by_layer)
    tree = leaves.of_model(model_config(config))
    if unused := by_layer.keys() - leaves.taken:
        raise LegacyModelError(f"has weights of no layer of the model: {sorted(unused)[:8]}", MANIFEST)
    return tree


class _Leaves:
    """The arrays of layers, whose names stand somewhere in those of their weights."""

    def __init__(self, by_name: dict[str, list[np.ndarray]]) -> None:
        self._by_name = by_name
        self.taken: set[str] = set()
        self._layers: set[str] = set()

    def of_model(self, model: ModelConfig) -> Tree:
        layers = [layer for layer in model.layers if layer.class_name != "InputLayer"]
        names = group_names([layer.class_name for layer in layers])
        inside = {name: self.of_layer(layer) for name, layer in zip(names, layers, strict=True)}
        return Tree(inside={"layers": Tree(inside=inside)})

    def of_layer(self, layer: LayerConfig, name: str | None = None) -> Tree:
        if layer.model is not None:
            return self.of_model(layer.model)
        name = layer.name or "" if name is None else name
        wrapped = layer.config.get("layer")
        if not isinstance(wrapped, dict):
            return Tree(tuple(self._named(name)))
        inner = layer_config(wrapped, layer.path)
        if inner.model is not None:
            return Tree(inside={"layer": self.of_model(inner.model)})
        arrays = self._named(name)
        if layer.class_name != "Bidirectional":
            return Tree(inside={"layer": Tree(tuple(arrays))})
        half = len(arrays) // 2
        sides = {"forward_layer": arrays[:half], "backward_layer": arrays[half:]}
        return Tree(inside={side: Tree(tuple(found)) for side, found in sides.items()})

    def _named(self, name: str) -> list[np.ndarray]:
        names = [weight for weight in self._by_name if name in weight.split("/")]
        if names and name in self._layers:
            raise LegacyModelError("is the name of two layers, whose weights cannot be told apart", name)
        self._layers.add(name)
        self.taken.update(names)
        return [array for weight in names for array in self._by_name[weight]]


def _arrays(folder: str, manifest: Any) -> list[tuple[str, np.ndarray]]:
    found = []
    for group in manifest if isinstance(manifest, list) else [None]:
        if not isinstance(group, dict) or not isinstance(group.get("weights"), list):
            raise LegacyModelError("is no list of groups of weights", MANIFEST)
        content = _content(folder, group.get("paths"))
        start = 0
        for entry in group["weights"]:
            array, start = _array(entry, content, start)
            found.append((str(entry["name"]), array))
        if start != len(content):
            raise LegacyModelError(f"leaves {len(content) - start} bytes of the shards over", MANIFEST)
    return found


def _content(folder: str, paths: Any) -> bytes:
    """The shards, which must lie beside the JSON."""
    if not isinstance(paths, list) or len(paths) > _MOST_SHARDS:
        raise LegacyModelError("lists no shards", MANIFEST)
    parts = []
    for path in paths:
        if not isinstance(path, str) or os.path.basename(path) != path or path in ("", ".", ".."):
            raise LegacyModelError(f"names a shard in another folder: {path!r}"[:200], MANIFEST)
        try:
            with open(os.path.join(folder, path), "rb") as stream:
                parts.append(stream.read())
        except OSError as error:
            lacking = f"cannot be read: {error.strerror}. Copy it beside the JSON"
            raise LegacyModelError(lacking, path) from error
    return b"".join(parts)


def _array(entry: Any, content: bytes, start: int) -> tuple[np.ndarray, int]:
    """One weight, and where the next one begins."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise LegacyModelError("has a weight without a name", MANIFEST)
    name, shape = entry["name"], entry.get("shape")
    listed = shape if isinstance(shape, list) else [None]
    sizes = [size for size in listed if type(size) is int and 0 <= size < 2**31]
    quantized = entry.get("quantization") or {}
    kind = quantized.get("dtype", entry.get("dtype")) if isinstance(quantized, dict) else None
    if len(sizes) < len(listed) or kind not in _TYPES:
        raise LegacyModelError(f"has the shape {shape!r} and the type {kind!r}"[:200], name)
    dtype = np.dtype(_TYPES[kind])
    end = start + math.prod(sizes) * dtype.itemsize
    if end > len(content):
        raise LegacyModelError("is not wholly in the shards. Copy them again", name)
    array = np.frombuffer(content[start:end], dtype).reshape(sizes)
    if kind in ("uint8", "uint16") and quantized:
        scale, least = quantized.get("scale"), quantized.get("min")
        if not all(
            isinstance(number, (int, float)) and math.isfinite(number) for number in (scale, least)
        ):
            raise LegacyModelError("is quantized without a scale and a minimum", name)
        array = array * np.float32(scale) + np.float32(least)
    original = "int32" if entry.get("dtype") == "int32" else "float32"
    return array.astype(original), end
