"""The layers of Keras 2.0 to 2.15, tf.keras among them: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from ....layer import BatchNorm
from . import config_readers as values
from . import keras1_table
from . import legacy_layers as own_layers
from .batch_norms import keras2_batch_norm
from .convolutions import convolution, pooling, upsampling
from .layer_spec import REQUIRED, Key, Names, Row
from .merges import merging
from .recurrent import bidirectional, cudnn
from .wrappers import BATCH_NORMS, time_distributed

L = keras.layers
V = values


def _names(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    """Names of weights; the bias is there with use_bias only."""

    def present(config: Mapping[str, Any]) -> Names:
        return tuple(one for one in names if one != "bias" or config.get("use_bias", True))

    return present


def _affine(statistics: bool) -> Callable[[Mapping[str, Any]], Names]:
    def present(config: Mapping[str, Any]) -> Names:
        affine = [one for one, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)]
        return (*affine, *(("*moving_mean", "*moving_variance") if statistics else ()))

    return present


def _of(*weights: str) -> dict[str, Key]:
    """Initialiser, regulariser and constraint of each weight."""
    keys = {"activity_regularizer": Key("activity_regularizer", V.regularizer2)}
    for name in weights:
        keys[f"{name}_initializer"] = Key(f"{name}_initializer", V.initializer2)
        keys[f"{name}_regularizer"] = Key(f"{name}_regularizer", V.regularizer2)
        keys[f"{name}_constraint"] = Key(f"{name}_constraint", V.constraint2)
    return keys


def _unused(*names: str) -> dict[str, Key]:
    """Settings that tf.keras inherited, wrote and never used."""
    return {name: Key(None, lambda value: value) for name in names}


def _same(read: V.Reader, *names: str, default: Any = REQUIRED) -> dict[str, Key]:
    return {name: Key(name, read, default) for name in names}


def _optional(read: V.Reader, *names: str) -> dict[str, Key]:
    return {name: Key(name, read) for name in names}


_FORMAT = {
    "data_format": Key("data_format", V.choice("channels_last", "channels_first"), "channels_last")
}
_ONE = {"groups": Key(None, V.choice(1))}
_ACTIVATION = {"activation": Key("activation", V.activation)}
_BIAS = _optional(V.flag, "use_bias")
_LINEAR = _ACTIVATION | _BIAS
_FILTERS = _same(V.size, "filters")
_KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_INNER = {"layer": Key("layer", lambda layer: layer, REQUIRED)}


def _window(rank: int) -> dict[str, Key]:
    paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    return (
        _same(V.sizes(rank), "kernel_size")
        | _same(V.sizes(rank), "strides", "dilation_rate", default=(1,) * rank)
        | _same(V.choice(*paddings), "padding", default="valid")
        | _LINEAR
        | _FORMAT
    )


def _convolution(rank: int) -> Row:
    keys = _FILTERS | _window(rank) | _of("kernel", "bias") | _optional(V.size, "groups")
    return Row(getattr(L, f"Conv{rank}D"), keys, _names("kernel", "bias"), convolution)


def _transposed(rank: int) -> Row:
    extra = {"output_padding": Key("output_padding", V.maybe(V.sizes(rank, V.offset)))}
    keys = _FILTERS | _window(rank) | _of("kernel", "bias") | extra | _ONE
    layer = getattr(L, f"Conv{rank}DTranspose")
    return Row(layer, keys, _names("kernel", "bias"), convolution)


def _depthwise(rank: int) -> Row:
    multiplier = _same(V.size, "depth_multiplier", default=1)
    keys = _window(rank) | _of("depthwise", "bias") | multiplier | _ONE
    layer = getattr(L, f"DepthwiseConv{rank}D")
    return Row(layer, keys | _unused(*_KERNEL), _names("depthwise_kernel", "bias"), convolution)


def _separable(rank: int) -> Row:
    multiplier = _same(V.size, "depth_multiplier", default=1)
    weights = _of("depthwise", "pointwise", "bias")
    keys = _FILTERS | _window(rank) | weights | multiplier | _ONE | _unused(*_KERNEL)
    names = _names("depthwise_kernel", "pointwise_kernel", "bias")
    return Row(getattr(L, f"SeparableConv{rank}D"), keys, names, convolution)


def _pool(kind: str, rank: int) -> Row:
    keys = (
        _same(V.sizes(rank), "pool_size", default=(2,) * rank)
        | _same(V.maybe(V.sizes(rank)), "strides", default=None)
        | _same(V.choice("valid", "same"), "padding", default="valid")
    )
    return Row(getattr(L, f"{kind}Pooling{rank}D"), keys | _FORMAT, finish=pooling)


def _global(kind: str, rank: int) -> Row:
    return Row(getattr(L, f"Global{kind}Pooling{rank}D"), _FORMAT | _optional(V.flag, "keepdims"))


_RECURRENT = (
    _same(V.size, "units")
    | _optional(V.flag, "return_sequences", "return_state", "go_backwards", "stateful")
    | _optional(V.number, "dropout", "recurrent_dropout")
    | _of("kernel", "recurrent", "bias")
    | {"unroll": Key(None, V.flag), "implementation": Key(None, V.choice(0, 1, 2))}
)
_PLAIN_RECURRENT = _RECURRENT | _LINEAR
_GATED = _PLAIN_RECURRENT | {
    "recurrent_activation": Key("recurrent_activation", V.activation, own_layers.legacy_hard_sigmoid)
}
_FORGET = _optional(V.flag, "unit_forget_bias")
_CELLS = _names("kernel", "recurrent_kernel", "bias")
_CUDNN: dict[str, Any] = {"recurrent_activation": "sigmoid", "activation": "tanh"}
_DROPOUT = _same(V.number, "rate") | _optional(V.maybe(V.integer), "seed")
_RENORM = ("*moving_stddev", "*renorm_mean", "*renorm_stddev")
_BATCH_NORM = Row(
    BatchNorm,
    _same(V.axes, "axis", default=-1)
    | _same(V.number, "epsilon", default=1e-3)
    | {"momentum": Key("decay", V.number, 0.99)}
    | _optional(V.flag, "center", "scale", "synchronized")
    | {key: one for key, one in _of("beta", "gamma").items() if key != "activity_regularizer"}
    | _optional(V.initializer2, "moving_mean_initializer", "moving_variance_initializer")
    | _optional(V.flag, "renorm")
    | {
        "renorm_momentum": Key("renorm_decay", V.maybe(V.number)),
        "renorm_clipping": Key("renorm_clipping", V.maybe(V.clipping)),
    }
    # Which samples shared statistics in training does not matter at inference.
    | {"virtual_batch_size": Key("virtual_batch_size", V.maybe(V.size))}
    | _unused("fused"),
    lambda config: (*_affine(True)(config), *(_RENORM if config.get("renorm") else ())),
    keras2_batch_norm,
)


def _sided(name: str, kind: str, rank: int) -> Row:
    keys = {name: Key(name, V.margins(rank), REQUIRED)}
    return Row(getattr(L, f"{kind}{rank}D"), keys | (_FORMAT if (kind, rank) != ("Cropping", 1) else {}))


_POOLS = [(kind, rank) for kind in ("Max", "Average") for rank in (1, 2, 3)]
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")

TABLE: dict[str, Row] = {
    "Dense": Row(
        L.Dense, _same(V.size, "units") | _LINEAR | _of("kernel", "bias"), _names("kernel", "bias")
    ),
    **{f"Conv{rank}D": _convolution(rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _transposed(rank) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    "ConvLSTM2D": Row(
        L.ConvLSTM2D,
        _FILTERS
        | _window(2)
        | {key: one for key, one in _GATED.items() if key not in ("units", "implementation")}
        | _FORGET,
        _CELLS,
        convolution,
    ),
    **{f"{kind}Pooling{rank}D": _pool(kind, rank) for kind, rank in _POOLS},
    **{f"Global{kind}Pooling{rank}D": _global(kind, rank) for kind, rank in _POOLS},
    "Activation": Row(L.Activation, _same(V.activation, "activation")),
    "Dropout": Row(L.Dropout, _DROPOUT | _optional(V.maybe(V.batch_shape), "noise_shape")),
    "SpatialDropout1D": Row(L.SpatialDropout1D, _DROPOUT | _unused("noise_shape")),
    **{
        f"SpatialDropout{rank}D": Row(getattr(L, f"SpatialDropout{rank}D"), _DROPOUT | _FORMAT)
        for rank in (2, 3)
    },
    "GaussianDropout": Row(L.GaussianDropout, _DROPOUT),
    "AlphaDropout": Row(L.AlphaDropout, _DROPOUT | _unused("noise_shape")),
    "GaussianNoise": Row(
        L.GaussianNoise, _same(V.number, "stddev") | _optional(V.maybe(V.integer), "seed")
    ),
    "ActivityRegularization": Row(L.ActivityRegularization, _same(V.number, "l1", "l2", default=0.0)),
    "Masking": Row(L.Masking, _same(V.number, "mask_value", default=0.0)),
    "Flatten": Row(L.Flatten, _FORMAT),
    "Reshape": Row(L.Reshape, _same(V.shape, "target_shape")),
    "Permute": Row(L.Permute, _same(lambda dims: [V.size(one) for one in dims], "dims")),
    "RepeatVector": Row(L.RepeatVector, _same(V.size, "n")),
    "Embedding": Row(
        L.Embedding,
        _same(V.size, "input_dim", "output_dim") | _of("embeddings") | _optional(V.flag, "mask_zero"),
        _names("embeddings"),
    ),
    "LSTM": Row(L.LSTM, _GATED | _FORGET, _CELLS),
    "GRU": Row(L.GRU, _GATED | _same(V.flag, "reset_after", default=False), _CELLS),
    "SimpleRNN": Row(L.SimpleRNN, _PLAIN_RECURRENT, _CELLS),
    "CuDNNLSTM": Row(L.LSTM, _RECURRENT | _FORGET, _CELLS, cudnn, _CUDNN),
    "CuDNNGRU": Row(L.GRU, _RECURRENT, _CELLS, cudnn, _CUDNN | {"reset_after": True}),
    "Bidirectional": Row(
        L.Bidirectional,
        _INNER
        | {
            "merge_mode": Key("merge_mode", V.choice("sum", "mul", "concat", "ave", None), "concat"),
            "backward_layer": Key("backward_layer", lambda layer: layer),
        },
        finish=bidirectional,
    ),
    "TimeDistributed": Row(L.TimeDistributed, _INNER, finish=time_distributed),
    **dict.fromkeys((*BATCH_NORMS, "SyncBatchNormalization"), _BATCH_NORM),
    "LayerNormalization": Row(
        L.LayerNormalization,
        _same(V.axes, "axis", default=-1)
        | _same(V.number, "epsilon", default=1e-3)
        | _optional(V.flag, "center", "scale")
        | _of("beta", "gamma"),
        _affine(False),
    ),
    **{name: Row(getattr(L, name), finish=merging) for name in _MERGES},
    "Concatenate": Row(L.Concatenate, _same(V.integer, "axis", default=-1), finish=merging),
    "Dot": Row(L.Dot, _same(V.axes, "axes") | _optional(V.flag, "normalize")),
    "Merge": keras1_table.TABLE["Merge"],
    **{f"ZeroPadding{rank}D": _sided("padding", "ZeroPadding", rank) for rank in (1, 2, 3)},
    **{f"Cropping{rank}D": _sided("cropping", "Cropping", rank) for rank in (1, 2, 3)},
    "UpSampling1D": Row(L.UpSampling1D, _same(V.size, "size", default=2)),
    "UpSampling2D": Row(
        L.UpSampling2D,
        _same(V.sizes(2), "size", default=2)
        | _FORMAT
        | _optional(V.choice("nearest", "bilinear"), "interpolation"),
        finish=upsampling,
    ),
    "UpSampling3D": Row(L.UpSampling3D, _same(V.sizes(3), "size", default=2) | _FORMAT),
    "ReLU": Row(
        L.ReLU,
        _optional(V.maybe(V.number), "max_value") | _optional(V.number, "negative_slope", "threshold"),
    ),
    "LeakyReLU": Row(L.LeakyReLU, {"alpha": Key("negative_slope", V.number, 0.3)}),
    "ELU": Row(L.ELU, _same(V.number, "alpha", default=1.0)),
    "Softmax": Row(L.Softmax, _same(V.axes, "axis", default=-1)),
    "ThresholdedReLU": keras1_table.TABLE["ThresholdedReLU"],
    "PReLU": Row(
        L.PReLU,
        _of("alpha")
        | _optional(V.maybe(lambda axes: [V.integer(axis) for axis in axes]), "shared_axes"),
        _names("alpha"),
    ),
    "Rescaling": Row(L.Rescaling, _same(V.number, "scale") | _same(V.number, "offset", default=0.0)),
}
