"""Which arrays of a file belong to which layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ....messages import join_some
from ..errors import LegacyModelError, UnsupportedLayerError
from ..layers.layer_spec import LayerSpec
from ..reading.architecture import LayerConfig, ModelConfig, layer_config, listed
from ..reading.archive import Tree
from ..reading.files import LayerWeights, LegacyFile

_SIDES = ("forward_layer", "backward_layer")
Slots = list[tuple[str, bool]]  # the name of a weight, and whether it is trained


class Assignment:
    """The arrays of each layer, by the layer's configuration.

    At the top of a file they are found by the layer's name, or by position where the names differ, as
    Keras did. Those of a nested model are one list: first all that are trained, then all others.

    Raises:
        LegacyModelError: other layers, or other numbers of weights, than the architecture has.
    """

    def __init__(self, table: Mapping[str, LayerSpec], file: LegacyFile, model: ModelConfig) -> None:
        self._table = table
        self._arrays: dict[LayerConfig, list[np.ndarray]] = {}
        if file.tree is not None:
            self._take(model, file.tree)
            return
        for layer, weights in self._pairs(file, list(listed(model))):
            slots = self.slots(layer)
            if slots is not None and len(slots) != len(weights.arrays):
                raise _other_number(layer, slots, weights.names)
            self._share(layer, list(weights.arrays))

    def arrays(self, layer: LayerConfig) -> list[np.ndarray]:
        return self._arrays.get(layer, [])

    def inside(self, layer: LayerConfig, arrays: list[np.ndarray]) -> None:
        """Note the arrays of a layer or model that a wrapper holds."""
        slots = self.slots(layer)
        if slots is not None and len(slots) != len(arrays):
            raise _other_number(layer, slots, [f"of shape {array.shape}" for array in arrays])
        self._share(layer, arrays)

    def slots(self, layer: LayerConfig) -> Slots | None:
        """The weights of a layer in the order of the file; `None` for a class that is not known."""
        if layer.model is not None:
            return _in_order([slot for slots in self._children(layer) for slot in slots])
        if layer.class_name in ("InputLayer", "Lambda"):
            return []
        spec = self._table.get(layer.class_name)
        if spec is None:
            return None
        trained = layer.config.get("trainable") is not False
        if isinstance(layer.config.get("layer"), dict):
            wrapped = layer_config(layer.config["layer"], layer.path)
            if layer.class_name == "Bidirectional" and "layer" in wrapped.config:
                raise UnsupportedLayerError("holds a wrapper and no recurrent layer", layer.path)
            inner = self.slots(wrapped) or []
            found = inner * 2 if layer.class_name == "Bidirectional" else inner
        else:
            names = spec.weights(layer.config)
            found = [(name.strip("*"), not name.startswith("*")) for name in names]
        return _in_order([(name, trained and trains) for name, trains in found])

    def _children(self, layer: LayerConfig) -> list[Slots]:
        children = []
        for child in listed(layer.model) if layer.model is not None else ():
            slots = self.slots(child)
            if slots is None:
                raise LegacyModelError(
                    f"{child.class_name} is not known, and within a model its weights cannot be told "
                    "from those of others",
                    child.path,
                )
            children.append(slots)
        return children

    def _share(self, layer: LayerConfig, arrays: list[np.ndarray]) -> None:
        if layer.model is None:
            self._arrays[layer] = arrays
            return
        children = self._children(layer)
        places = [(trained, number) for number, slots in enumerate(children) for _, trained in slots]
        order = sorted(range(len(places)), key=lambda place: not places[place][0])
        shares: list[list[np.ndarray]] = [[] for _ in children]
        for place, array in zip(order, arrays, strict=True):
            shares[places[place][1]].append(array)
        for child, share in zip(listed(layer.model), shares, strict=True):
            self._share(child, share)

    def _take(self, model: ModelConfig, tree: Tree) -> None:
        """The arrays of a model from an archive, which keeps them by the classes of the layers."""
        for layer, inside in _by_class(model, tree):
            found = [array for array, _ in self._found(layer, inside)]
            self.inside(layer, found)

    def _found(self, layer: LayerConfig, tree: Tree) -> list[tuple[np.ndarray, bool]]:
        """The arrays of a layer in the order of its slots, and whether each is trained."""
        if layer.model is not None:
            children = _by_class(layer.model, tree)
            found = [pair for child, inside in children for pair in self._found(child, inside)]
        elif isinstance(layer.config.get("layer"), dict):
            wrapped = layer_config(layer.config["layer"], layer.path)
            sides = _SIDES if layer.class_name == "Bidirectional" else ("layer",)
            parts = [tree.inside[side] for side in sides if side in tree.inside]
            found = [pair for part in parts for pair in self._found(wrapped, part)]
        else:
            arrays, slots = tree.all_arrays(), self.slots(layer)
            if slots is None and len(arrays) > len(tree.arrays):
                raise LegacyModelError(
                    f"{layer.class_name} holds layers, whose order the archive does not tell. Save the "
                    "model as HDF5 where it was made, model.save('old.h5')",
                    layer.path,
                )
            if slots is not None and len(slots) != len(arrays):
                raise _other_number(layer, slots, [f"of shape {array.shape}" for array in arrays])
            flags = [True] * len(arrays) if slots is None else [trained for _, trained in slots]
            found = list(zip(arrays, flags, strict=True))
        return sorted(found, key=lambda pair: not pair[1])

    def _pairs(
        self, file: LegacyFile, layers: Sequence[LayerConfig]
    ) -> list[tuple[LayerConfig, LayerWeights]]:
        """Layers with weights and what the file has for them."""
        stored = {weights.name: weights for weights in file.layers if weights.arrays}
        slots = [(layer, self.slots(layer)) for layer in layers]
        known = {layer.name for layer in layers}
        needed = [layer for layer, found in slots if found or (found is None and layer.name in stored)]
        if (
            not file.numbered
            and all(layer.name in stored for layer in needed)
            and stored.keys() <= known
        ):
            return [(layer, stored[layer.name]) for layer in needed if layer.name is not None]
        if len(needed) != len(stored):
            raise LegacyModelError(
                f"the file has weights of {len(stored)} layers ({_some(stored)}), and the architecture "
                f"{len(needed)} layers with weights ({_some(layer.path for layer in needed)}). Pass the "
                "weights of this architecture",
                "weights",
            )
        return list(zip(needed, stored.values(), strict=True))


def _by_class(model: ModelConfig, tree: Tree) -> list[tuple[LayerConfig, Tree]]:
    layers = [layer for layer in model.layers if layer.class_name != "InputLayer"]
    return list(zip(layers, tree.of_layers([layer.class_name for layer in layers]), strict=True))


def _in_order(slots: Slots) -> Slots:
    return sorted(slots, key=lambda slot: not slot[1])


def _some(names: Iterable[Any]) -> str:
    return join_some([str(name) for name in names], most=8) or "none"


def _other_number(layer: LayerConfig, slots: Slots, found: Sequence[str]) -> LegacyModelError:
    return LegacyModelError(
        f"{layer.class_name} has the weights {_some(name for name, _ in slots)}, and the file holds "
        f"{len(found)}: {_some(found)}",
        layer.path,
    )
