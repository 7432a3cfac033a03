"""LSTM, GRU, SimpleRNN and what is made of their cells: the input meets a kernel before all else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.kernel_arithmetic import KernelLayout
from ..core.targets import PendingFold, per_channel_map
from .targets import LayerEdit, LayerTarget, arrays, check_weights, own_configuration

L = keras.layers
_LAYOUT = KernelLayout("kernel", (-1,), ("kernel", -2))
_CELLS = (L.LSTMCell, L.GRUCell, L.SimpleRNNCell)
# A layer of one kind of cell has that cell's arguments as its own.
_OF_ONE_KIND = (L.LSTM, L.GRU, L.SimpleRNN)
# The arguments that may say whether a cell has a bias, or hold what does.
_ARGUMENTS = ("use_bias", "cell", "layer", "backward_layer")


class RecurrentTarget(LayerTarget):
    """A recurrent layer takes up the map of its input, the same at all steps."""

    def output(self, call: Call, affine: Affine) -> Affine:
        raise CannotFoldError(f"{call.op} feeds its output back to itself")

    def input(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
        if layer.stateful:
            raise CannotFoldError(f"{call.op} is stateful, and its state would be lost")
        for _, cell, _ in _cells(layer):
            check_weights(cell)
            if call.attributes["training"] and (cell.dropout or cell.recurrent_dropout):
                raise CannotFoldError(
                    f"{call.op} is called with training=True and drops values at random"
                )
        shape = call.inputs[0].shape
        return per_channel_map(layer.name, affine, (len(shape) - 1,), shape)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        weights: dict[str, Any] = arrays(layer)
        config = own_configuration(layer)
        for path, cell, own in _cells(layer, config):
            kernels = {"kernel": weights[f"{path}/kernel"]}
            scaled, response = _LAYOUT.fold(kernels, np.zeros(1), pending)
            weights[f"{path}/kernel"] = scaled["kernel"]
            if not cell.use_bias and not response.any():
                continue
            if isinstance(cell, L.GRUCell) and cell.reset_after:
                # Its bias is one for the input and one for the state, which stays.
                response = np.stack([response, np.zeros_like(response)])
            own["use_bias"] = True
            weights[f"{path}/bias"] = np.asarray(weights.get(f"{path}/bias", 0.0), "float64") + response
        return LayerEdit({name: config[name] for name in _ARGUMENTS if name in config}, weights)


def _cells(layer: Any, config: Any = None, path: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The cells that read a recurrent layer's input: path, cell, and its arguments within `config`.

    Raises:
        CannotFoldError: one is not of Keras.
    """
    config = {} if config is None else config
    if isinstance(layer, L.Bidirectional):
        for inner, name in ((layer.forward_layer, "layer"), (layer.backward_layer, "backward_layer")):
            yield from _cells(inner, config.get(name, {}).get("config"), f"{inner.name}/")
        return
    cell, own = layer.cell, config
    path += cell.name
    if type(layer) not in _OF_ONE_KIND:
        own = config.get("cell", {}).get("config", {})
    if type(cell) is L.StackedRNNCells:
        own = own.get("cells", [{}])[0].get("config", {})
        cell = cell.cells[0]
        path += f"/{cell.name}"
    if type(layer) not in (L.RNN, *_OF_ONE_KIND) or type(cell) not in _CELLS:
        raise CannotFoldError(f"{layer.name!r} has a cell of its own ({type(cell).__name__})")
    yield path, cell, own
