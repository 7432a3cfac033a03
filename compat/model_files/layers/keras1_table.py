"""The layers of Keras 0.3.3 to 1.2.2: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from ....layer import BatchNorm
from . import config_readers as values
from . import legacy_layers as own_layers
from .batch_norms import keras1_batch_norm
from .convolutions import deconvolution, keras1_convolution, pooling, separable1
from .layer_spec import REQUIRED, Key, Names, Row
from .merges import MODES, dot_axes, merge
from .recurrent import bidirectional, gate_names, keras1_recurrent
from .wrappers import time_distributed

L = keras.layers
V = values


def _weights(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    """Names of weights, the bias last, which `bias=False` leaves out."""
    return lambda config: names if config.get("bias", True) else names[:-1]


def _always(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    return lambda config: names


def _batch_norm_names(config: Mapping[str, Any]) -> Names:
    return ("gamma", "beta", "*running_mean", "*running_std")


def _kernel(*kinds: str, bias: bool = True) -> dict[str, Key]:
    """The keys about weights; `kinds` are pairs of the old letter and the new name."""
    keys = {"activity_regularizer": Key("activity_regularizer", V.activity1)}
    for kind in kinds:
        letter, name = kind.split(":")
        keys[f"{letter}_regularizer"] = Key(f"{name}_regularizer", V.regularizer1)
        keys[f"{letter}_constraint"] = Key(f"{name}_constraint", V.constraint1)
    if bias:
        keys["bias"] = Key("use_bias", V.flag)
    return keys


_ACTIVATION = {"activation": Key("activation", V.activation)}
_INIT = {"init": Key("kernel_initializer", V.initializer1)}
_LINEAR = _INIT | _ACTIVATION | _kernel("W:kernel", "b:bias")
_ORDERING = Key("data_format", V.renamed({"th": "channels_first", "tf": "channels_last"}), REQUIRED)
_LAST = {"data_format": "channels_last"}  # Keras 3 has a global default
_BORDER = Key("padding", V.choice("valid", "same"), "valid")
_DENSE = Row(L.Dense, {"output_dim": Key("units", V.size, REQUIRED)} | _LINEAR, _weights("W", "b"))


def _convolution(layer: type, rank: int, **more: Key) -> Row:
    """A convolution, whose length, rows and columns were settings of their own."""
    keys = {"nb_filter": Key("filters", V.size, REQUIRED), "border_mode": _BORDER} | _LINEAR | more
    if rank == 1:
        keys |= {
            "filter_length": Key("kernel_size", V.sizes(1), REQUIRED),
            "subsample_length": Key("strides", V.sizes(1), (1,)),
        }
    else:
        sizes = [("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3")][rank - 2]
        keys |= {name: Key(f"size:{number}", V.size, REQUIRED) for number, name in enumerate(sizes)}
        keys |= {"subsample": Key("strides", V.sizes(rank), (1,) * rank), "dim_ordering": _ORDERING}
    return Row(layer, keys, _weights("W", "b"), _sized(keras1_convolution))


def _sized(finish: Callable[..., Any]) -> Callable[..., Any]:
    """Before `finish`, put rows and columns together to a kernel_size."""

    def sized(row: Row, call: Any, arguments: dict[str, Any]) -> Any:
        sizes = [arguments.pop(key) for key in sorted(arguments) if key.startswith("size:")]
        return finish(row, call, arguments | ({"kernel_size": tuple(sizes)} if sizes else {}))

    return sized


def _with(
    row: Row, finish: Any = None, weights: Any = None, layer: type | None = None, **keys: Key
) -> Row:
    return Row(layer or row.layer, row.keys | keys, weights or row.weights, finish or row.finish)


_CONV1D = _convolution(L.Conv1D, 1)
_CONV2D = _convolution(L.Conv2D, 2)


def _pool(layer: type, rank: int) -> Row:
    keys = {"border_mode": _BORDER}
    if rank == 1:
        keys |= {
            "pool_length": Key("pool_size", V.sizes(1), (2,)),
            "stride": Key("strides", V.maybe(V.sizes(1)), None),
        }
    else:
        keys |= {
            "pool_size": Key("pool_size", V.sizes(rank), (2,) * rank),
            "strides": Key("strides", V.maybe(V.sizes(rank)), None),
            "dim_ordering": _ORDERING,
        }
    return Row(layer, keys, finish=pooling, more=_LAST)


def _images(layer: type, old: str, new: str, read: V.Reader, default: Any, rank: int) -> Row:
    keys = {old: Key(new, read, default)}
    if rank > 1:
        return Row(layer, keys | {"dim_ordering": _ORDERING})
    return Row(layer, keys, more=_LAST if layer is L.ZeroPadding1D else {})


def _dropout(layer: type, ordering: bool = False, name: str = "p", new: str = "rate") -> Row:
    keys = {name: Key(new, V.number, REQUIRED)}
    return Row(layer, keys | ({"dim_ordering": _ORDERING} if ordering else {}))


_RECURRENT = {
    "output_dim": Key("units", V.size, REQUIRED),
    "inner_init": Key("recurrent_initializer", V.initializer1),
    "activation": Key("activation", V.activation, V.activation("tanh")),
    **{name: Key(name, V.flag) for name in ("return_sequences", "go_backwards", "stateful")},
    "dropout_W": Key("dropout", V.number),
    "dropout_U": Key("recurrent_dropout", V.number),
    "consume_less": Key(None, V.choice("cpu", "mem", "gpu")),
    "unroll": Key(None, V.flag),  # how it runs, not what
    "truncate_gradient": Key(None, V.integer),
    **_INIT,
    **_kernel("W:kernel", "U:recurrent", "b:bias", bias=False),
}
_GATED = _RECURRENT | {
    "inner_activation": Key("recurrent_activation", V.activation, own_layers.legacy_hard_sigmoid)
}
_FORGET = {"forget_bias_init": Key("forget_bias", V.choice("one", "zero", "uniform", "normal"), "one")}
_INNER = {"layer": Key("layer", lambda layer: layer, REQUIRED)}
_EPSILON = {
    "epsilon": Key("epsilon", V.number),
    "mode": Key("mode", V.choice(0, 1, 2), 0),
    "axis": Key("axis", V.integer, -1),
    "momentum": Key("momentum", V.number),
    **{f"{name}_regularizer": Key(f"{name}_regularizer", V.regularizer1) for name in ("gamma", "beta")},
    "beta_init": Key("beta_init", V.vector_initializer1, "zero"),
    "gamma_init": Key("gamma_init", V.vector_initializer1, "one"),
}
_MERGE = {
    "mode": Key("mode", V.choice(*MODES), "sum"),
    "concat_axis": Key("concat_axis", V.integer, -1),
    "dot_axes": Key("dot_axes", dot_axes, -1),
    **{f"{name}_type": Key(None, V.choice("raw")) for name in ("mode", "output_shape", "output_mask")},
}
_SHARED = {"shared_axes": Key("shared_axes", V.maybe(lambda axes: [V.integer(axis) for axis in axes]))}

TABLE: dict[str, Row] = {
    "Dense": _DENSE,
    "TimeDistributedDense": _DENSE,
    "Activation": Row(L.Activation, {"activation": Key("activation", V.activation, REQUIRED)}),
    "Dropout": _dropout(L.Dropout),
    "SpatialDropout1D": _dropout(L.SpatialDropout1D),
    "SpatialDropout2D": _dropout(L.SpatialDropout2D, True),
    "SpatialDropout3D": _dropout(L.SpatialDropout3D, True),
    "GaussianDropout": _dropout(L.GaussianDropout),
    "GaussianNoise": _dropout(L.GaussianNoise, name="sigma", new="stddev"),
    "ActivityRegularization": Row(
        L.ActivityRegularization, {name: Key(name, V.number, 0.0) for name in ("l1", "l2")}
    ),
    "Masking": Row(L.Masking, {"mask_value": Key("mask_value", V.number, 0.0)}),
    "Flatten": Row(L.Flatten, more=_LAST),  # never reordered in Keras 1
    "Reshape": Row(L.Reshape, {"target_shape": Key("target_shape", V.shape, REQUIRED)}),
    "Permute": Row(
        L.Permute, {"dims": Key("dims", lambda dims: [V.size(one) for one in dims], REQUIRED)}
    ),
    "RepeatVector": Row(L.RepeatVector, {"n": Key("n", V.size, REQUIRED)}),
    "Merge": Row(L.Add, _MERGE, finish=merge),
    "Embedding": Row(
        L.Embedding,
        {
            "input_dim": Key("input_dim", V.size, REQUIRED),
            "output_dim": Key("output_dim", V.size, REQUIRED),
            "init": Key("embeddings_initializer", V.initializer1),
            "mask_zero": Key("mask_zero", V.flag),
            "dropout": Key(None, V.choice(0, 0.0, False)),
            **_kernel("W:embeddings", bias=False),
        },
        _always("W"),
    ),
    "Convolution1D": _CONV1D,
    "Convolution2D": _CONV2D,
    "Convolution3D": _convolution(L.Conv3D, 3),
    "AtrousConvolution1D": _with(_CONV1D, atrous_rate=Key("dilation_rate", V.sizes(1), (1,))),
    "AtrousConvolution2D": _with(_CONV2D, atrous_rate=Key("dilation_rate", V.sizes(2), (1, 1))),
    "Deconvolution2D": _with(
        _CONV2D,
        _sized(deconvolution),
        layer=L.Conv2DTranspose,
        output_shape=Key("output_shape", V.batch_shape, REQUIRED),
    ),
    "SeparableConvolution2D": Row(
        L.SeparableConv2D,
        {key: one for key, one in _CONV2D.keys.items() if key[:2] not in ("W_", "in")}
        | _kernel("depthwise:depthwise", "pointwise:pointwise", "b:bias")
        | {
            "depth_multiplier": Key("depth_multiplier", V.size, 1),
            "init": Key("depthwise_initializer", V.initializer1),
        },
        _weights("depthwise_kernel", "pointwise_kernel", "b"),
        _sized(separable1),
    ),
    **{
        f"{kind}Pooling{rank}D": _pool(getattr(L, f"{kind}Pooling{rank}D"), rank)
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"Global{kind}Pooling{rank}D": Row(
            getattr(L, f"Global{kind}Pooling{rank}D"),
            {"dim_ordering": _ORDERING} if rank > 1 else {},
            more=_LAST,
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"ZeroPadding{rank}D": _images(
            getattr(L, f"ZeroPadding{rank}D"), "padding", "padding", V.margins(rank), 1, rank
        )
        for rank in (1, 2, 3)
    },
    **{
        f"Cropping{rank}D": _images(
            getattr(L, f"Cropping{rank}D"), "cropping", "cropping", V.margins(rank), REQUIRED, rank
        )
        for rank in (1, 2, 3)
    },
    "UpSampling1D": _images(L.UpSampling1D, "length", "size", V.size, 2, 1),
    "UpSampling2D": _images(L.UpSampling2D, "size", "size", V.sizes(2), 2, 2),
    "UpSampling3D": _images(L.UpSampling3D, "size", "size", V.sizes(3), 2, 3),
    "LSTM": Row(L.LSTM, _GATED | _FORGET, gate_names("icfo"), keras1_recurrent),
    "GRU": Row(L.GRU, _GATED, gate_names("zrh"), keras1_recurrent, {"reset_after": False}),
    "SimpleRNN": Row(L.SimpleRNN, _RECURRENT, _always("W", "U", "b")),
    "Bidirectional": Row(
        L.Bidirectional,
        _INNER
        | {"merge_mode": Key("merge_mode", V.choice("sum", "mul", "concat", "ave", None), "concat")},
        finish=bidirectional,
    ),
    "TimeDistributed": Row(L.TimeDistributed, _INNER, finish=time_distributed),
    "BatchNormalization": Row(BatchNorm, _EPSILON, _batch_norm_names, keras1_batch_norm),
    "LeakyReLU": Row(L.LeakyReLU, {"alpha": Key("negative_slope", V.number, 0.3)}),
    "ELU": Row(L.ELU, {"alpha": Key("alpha", V.number, 1.0)}),
    "ThresholdedReLU": Row(own_layers.ThresholdedReLU, {"theta": Key("theta", V.number, 1.0)}),
    "PReLU": Row(
        L.PReLU, {"init": Key("alpha_initializer", V.initializer1)} | _SHARED, _always("alphas")
    ),
    "ParametricSoftplus": Row(
        own_layers.ParametricSoftplus,
        {f"{name}_init": Key(None, V.number) for name in ("alpha", "beta")} | _SHARED,
        _always("alphas", "betas"),
    ),
    "SReLU": Row(
        own_layers.SReLU,
        {
            f"{name}_init": Key(None, V.initializer1)
            for name in ("t_left", "a_left", "t_right", "a_right")
        }
        | _SHARED,
        _always("t_left", "a_left", "t_right", "a_right"),
    ),
}
