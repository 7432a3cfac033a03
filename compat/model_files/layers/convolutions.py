"""Convolutions and pooling: layouts of kernels, Theano's flips and windows, channels first."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ....axes import bias_may_be_misplaced
from ....data_format.rules import ignores_axes
from .layer_spec import BuildContext, BuiltLayers, LayerSpec, part_name
from .legacy_layers import (
    CornerUpSampling2D,
    PaddedConv1DTranspose,
    PaddedConv2DTranspose,
    PaddedConv3DTranspose,
    TheanoPooling,
)

L = keras.layers
_TRANSPOSED: dict[Any, Any] = {
    L.Conv1DTranspose: PaddedConv1DTranspose,
    L.Conv2DTranspose: PaddedConv2DTranspose,
    L.Conv3DTranspose: PaddedConv3DTranspose,
}
_PADDING: dict[int, Any] = {1: L.ZeroPadding1D, 2: L.ZeroPadding2D, 3: L.ZeroPadding3D}


def convolution(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """A convolution whose weights have the layout of Keras 2 and 3.

    Theano turned kernels around, and its "same" put more of the padding first than TensorFlow's.
    """
    size = arguments["kernel_size"]
    weights = list(context.arrays)
    if weights and max(size) > 1 and _backend(context, "Theano turned kernels around") == "theano":
        if spec.layer in (L.SeparableConv1D, L.SeparableConv2D, L.DepthwiseConv1D, L.DepthwiseConv2D):
            raise context.unsupported(
                "Keras on Theano had no such convolution in one form that is known"
            )
        spatial = tuple(range(len(size)))
        for number, array in enumerate(weights):
            if array.ndim == len(size) + 2:
                weights[number] = np.flip(array, spatial)
    if (
        spec.layer in _TRANSPOSED
        and arguments["padding"] == "same"
        and context.writer.backend != "tensorflow"
    ):
        raise context.unsupported("'same' is known of the TensorFlow backend only")
    if spec.layer is L.ConvLSTM2D:
        if context.writer.backend != "tensorflow":
            raise context.unsupported("is known of the TensorFlow backend only")
        return BuiltLayers([spec.layer(**arguments)], weights=weights)
    return _placed(spec, context, arguments, weights)


def _placed(
    spec: LayerSpec, context: BuildContext, arguments: dict[str, Any], weights: list[np.ndarray]
) -> BuiltLayers:
    """The convolution, with the padding before it and the transposition around it that it needs."""
    rank, name = len(arguments["kernel_size"]), arguments["name"]
    margins = None if spec.layer in _TRANSPOSED else _margins(context, arguments)
    before: list[Any] = []
    after: list[Any] = []
    first = arguments["data_format"] == "channels_first"
    if first and (
        (rank == 1 and (margins or not context.turned)) or _bias_misplaced(spec, context, arguments)
    ):
        there, back = (*range(2, rank + 2), 1), (rank + 1, *range(1, rank + 1))
        before.append(L.Permute(there, name=part_name(name, "channels_last")))
        after.append(L.Permute(back, name=part_name(name, "channels_first")))
        arguments = arguments | {"data_format": "channels_last"}
        if (function := arguments.get("activation")) is not None and not ignores_axes(function):
            arguments["activation"] = "linear"
            after.append(L.Activation(function, name=part_name(name, "activation")))
    if margins is not None:
        given = {"data_format": "channels_last" if rank == 1 else arguments["data_format"]}
        padding = margins[0] if rank == 1 else margins
        before.append(_PADDING[rank](padding, name=part_name(name, "padding"), **given))
        arguments = arguments | {"padding": "valid"}
    holder = _layer(spec, arguments)
    return BuiltLayers([*before, holder, *after], holder, weights, fixed=first)


def _layer(spec: LayerSpec, arguments: dict[str, Any]) -> Any:
    """Keras' layer, or one that saves its `output_padding` where Keras' does not (before 3.15)."""
    padded = spec.layer in _TRANSPOSED and arguments.get("output_padding") is not None
    if padded and "output_padding" not in L.Conv2DTranspose(1, 1).get_config():
        return _TRANSPOSED[spec.layer](**arguments)
    return spec.layer(**arguments)


def _bias_misplaced(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> bool:
    """Whether the layer has a bias, and Keras 3 may add it along the wrong axis."""
    if context.turned or not arguments.get("use_bias", True):
        return False
    probe = _layer(spec, arguments | {"name": None})
    return bias_may_be_misplaced(probe.compute_output_shape(context.shape))


def _backend(context: BuildContext, why: str) -> str:
    return context.writer.required_backend(context.layer.path, why)


def _margins(context: BuildContext, arguments: dict[str, Any]) -> tuple[tuple[int, int], ...] | None:
    """The padding of "same" on Theano; `None` where it is that of today.

    Theano put k // 2 before the first value of a window of k, on every axis. TensorFlow's differs for
    even windows, and with strides, for which it pads less.
    """
    if arguments["padding"] != "same":
        return None
    rates, strides = arguments.get("dilation_rate", 1), arguments["strides"]
    windows = [
        (size - 1) * rate + 1
        for size, rate in zip(arguments["kernel_size"], _each(rates, arguments), strict=True)
    ]
    odd = all(window % 2 for window in windows) and max(_each(strides, arguments)) == 1
    if odd or max(windows) == 1:
        return None
    backend = _backend(context, "'same' pads otherwise on Theano")
    if backend == "cntk":
        raise context.unsupported("'same' with strides or even windows is not known of CNTK")
    if backend == "tensorflow":
        return None
    return tuple((window // 2, (window - 1) // 2) for window in windows)


def _each(value: Any, arguments: dict[str, Any]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * len(arguments["kernel_size"])


def keras1_convolution(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """A convolution of Keras 1: its kernel brought to today's layout first.

    The layout was (filters, channels, rows, columns) with dim_ordering "th", today's with "tf"; of one
    dimension (length, 1, channels, filters), and (filters, channels, length, 1) before Keras 1.2.
    """
    size, filters = arguments["kernel_size"], arguments["filters"]
    rank = len(size)
    kernel, *rest = context.arrays
    if kernel.ndim != (4 if rank == 1 else rank + 2):
        raise context.unsupported(f"its kernel of shape {kernel.shape} has {kernel.ndim} axes")
    if rank == 1:
        modern = kernel.shape[:2] == (size[0], 1) and kernel.shape[3] == filters
        kernel = kernel[:, 0] if modern else np.transpose(kernel, (2, 3, 1, 0))[:, 0]
    elif arguments["data_format"] == "channels_first":
        kernel = np.transpose(kernel, (*range(2, rank + 2), 1, 0))
        if getattr(arguments.get("kernel_constraint"), "axis", None) is not None:
            raise context.unsupported("its constraint has an axis of a kernel laid out otherwise")
    arguments = {"data_format": "channels_last"} | arguments
    changed = BuildContext(**(vars(context) | {"arrays": [kernel, *rest]}))
    return convolution(spec, changed, arguments)


def deconvolution(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """Deconvolution2D of Keras 1, which was told the shape of its output."""
    kernel, *rest = context.arrays
    size, strides = arguments["kernel_size"], arguments["strides"]
    first = arguments["data_format"] == "channels_first"
    output = arguments.pop("output_shape")
    spatial = output[2:4] if first else output[1:3]
    inputs = context.shape[2:4] if first else context.shape[1:3]
    if kernel.ndim != 4 or None in (*spatial, *inputs) or len(context.shape) != 4:
        raise context.unsupported("needs a kernel of four axes and images of known size")
    same = arguments["padding"] == "same"
    axes: list[Any] = list(zip(spatial, inputs, strides, size, strict=True))
    fits = all(-(-(out - (0 if same else k - 1)) // s) == length for out, length, s, k in axes)
    usual = all(out == length * s + (0 if same else max(k - s, 0)) for out, length, s, k in axes)
    extra = [out - ((length - 1) * s + k - (2 * (k // 2) if same else 0)) for out, length, s, k in axes]
    if not fits or not (usual or all(0 <= pixels < s for pixels, s in zip(extra, strides, strict=True))):
        raise context.unsupported(f"makes no images of {spatial} from {inputs}")
    theano = max(size) > 1 and _backend(context, "Theano turned kernels around") == "theano"
    if theano and same:
        cut = [max((length - 1) * s + k - out, 0) // 2 != k // 2 for out, length, s, k in axes]
        if any(cut) or any(k % 2 == 0 for k in size):
            raise context.unsupported("'same' with strides or even windows cut otherwise on Theano")
    kernel = np.transpose(kernel, (2, 3, 0, 1) if first else (0, 1, 3, 2))
    kernel = np.flip(kernel, (0, 1)) if theano else kernel
    arguments |= {"output_padding": None if usual else extra}
    built = _placed(spec, context, arguments, [kernel, *rest])
    built.fixed = True
    return built


def separable1(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """SeparableConvolution2D of Keras 1, which ran on TensorFlow only: nothing was turned around."""
    weights = list(context.arrays)
    if arguments["data_format"] == "channels_first":
        weights[:2] = [np.transpose(array, (2, 3, 1, 0)) for array in weights[:2] if array.ndim == 4]
    return _placed(spec, context, arguments, weights)


def upsampling(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """UpSampling2D, whose bilinear pixels lay elsewhere before TensorFlow 1.15."""
    writer, layer = context.writer, spec.layer
    if arguments.get("interpolation") == "bilinear":
        if not writer.release or (writer.inside_tensorflow and writer.release[:2] == (2, 2)):
            raise context.unsupported(
                "interpolates as TensorFlow 1.14 did, or as 1.15 and later do, which the file does not "
                "tell. Pass custom_objects={'UpSampling2D': keras.layers.UpSampling2D} for the latter"
            )
        if writer.release[:2] < ((2, 2) if writer.inside_tensorflow else (2, 4)):
            if writer.backend != "tensorflow":
                raise context.unsupported("'bilinear' is known of the TensorFlow backend only")
            layer = CornerUpSampling2D
    return BuiltLayers([layer(**arguments)])


def pooling(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """Pooling, of which Theano placed the windows of "same" in its own way."""
    size = arguments["pool_size"]
    strides = arguments["strides"] or size
    plain = all(k == 1 or (k == 3 and s == 1) for k, s in zip(size, strides, strict=True))
    if arguments["padding"] == "same" and not plain:
        backend = _backend(context, "'same' pools other windows on Theano")
        if backend == "cntk":
            raise context.unsupported("'same' is not known of CNTK")
        if backend == "theano":
            kept = {key: arguments[key] for key in ("name", "trainable", "dtype") if key in arguments}
            mode = "MAX" if spec.layer in (L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D) else "AVG"
            form = arguments.get("data_format", "channels_last")
            return BuiltLayers([TheanoPooling(size, strides, mode, form, **kept)])
    return BuiltLayers([spec.layer(**arguments)])
