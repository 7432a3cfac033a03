"""The layers of Keras 2.0 to 2.15, tf.keras among them: a `LayerSpec` for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from ....layer import BatchNorm
from . import config_readers as readers
from . import keras1_table, legacy_layers
from .batch_norms import keras2_batch_norm
from .convolutions import convolution, pooling, upsampling
from .layer_spec import REQUIRED, ConfigKey, LayerSpec, Names
from .merges import merging
from .recurrent import bidirectional, cudnn
from .wrappers import BATCH_NORMS, time_distributed

L = keras.layers


def _names(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    """Names of weights; the bias is there with use_bias only."""

    def present(config: Mapping[str, Any]) -> Names:
        return tuple(name for name in names if name != "bias" or config.get("use_bias", True))

    return present


def _affine(statistics: bool) -> Callable[[Mapping[str, Any]], Names]:
    def present(config: Mapping[str, Any]) -> Names:
        affine = [
            name for name, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)
        ]
        return (*affine, *(("*moving_mean", "*moving_variance") if statistics else ()))

    return present


def _of(*weights: str) -> dict[str, ConfigKey]:
    """Initialiser, regulariser and constraint of each weight."""
    keys = {"activity_regularizer": ConfigKey("activity_regularizer", readers.regularizer2)}
    for name in weights:
        keys[f"{name}_initializer"] = ConfigKey(f"{name}_initializer", readers.initializer2)
        keys[f"{name}_regularizer"] = ConfigKey(f"{name}_regularizer", readers.regularizer2)
        keys[f"{name}_constraint"] = ConfigKey(f"{name}_constraint", readers.constraint2)
    return keys


def _unused(*names: str) -> dict[str, ConfigKey]:
    """Settings that tf.keras inherited, wrote and never used."""
    return {name: ConfigKey(None, lambda value: value) for name in names}


def _same(read: readers.Reader, *names: str, default: Any = REQUIRED) -> dict[str, ConfigKey]:
    return {name: ConfigKey(name, read, default) for name in names}


def _optional(read: readers.Reader, *names: str) -> dict[str, ConfigKey]:
    return {name: ConfigKey(name, read) for name in names}


_FORMAT = {
    "data_format": ConfigKey(
        "data_format", readers.choice("channels_last", "channels_first"), "channels_last"
    )
}
_ONE = {"groups": ConfigKey(None, readers.choice(1))}
_ACTIVATION = {"activation": ConfigKey("activation", readers.activation)}
_BIAS = _optional(readers.flag, "use_bias")
_LINEAR = _ACTIVATION | _BIAS
_FILTERS = _same(readers.size, "filters")
_KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_INNER = {"layer": ConfigKey("layer", lambda layer: layer, REQUIRED)}


def _window(rank: int) -> dict[str, ConfigKey]:
    paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    return (
        _same(readers.sizes(rank), "kernel_size")
        | _same(readers.sizes(rank), "strides", "dilation_rate", default=(1,) * rank)
        | _same(readers.choice(*paddings), "padding", default="valid")
        | _LINEAR
        | _FORMAT
    )


def _convolution(rank: int) -> LayerSpec:
    keys = _FILTERS | _window(rank) | _of("kernel", "bias") | _optional(readers.size, "groups")
    return LayerSpec(getattr(L, f"Conv{rank}D"), keys, _names("kernel", "bias"), convolution)


def _transposed(rank: int) -> LayerSpec:
    extra = {
        "output_padding": ConfigKey("output_padding", readers.maybe(readers.sizes(rank, readers.offset)))
    }
    keys = _FILTERS | _window(rank) | _of("kernel", "bias") | extra | _ONE
    layer = getattr(L, f"Conv{rank}DTranspose")
    return LayerSpec(layer, keys, _names("kernel", "bias"), convolution)


def _depthwise(rank: int) -> LayerSpec:
    multiplier = _same(readers.size, "depth_multiplier", default=1)
    keys = _window(rank) | _of("depthwise", "bias") | multiplier | _ONE
    layer = getattr(L, f"DepthwiseConv{rank}D")
    return LayerSpec(layer, keys | _unused(*_KERNEL), _names("depthwise_kernel", "bias"), convolution)


def _separable(rank: int) -> LayerSpec:
    multiplier = _same(readers.size, "depth_multiplier", default=1)
    weights = _of("depthwise", "pointwise", "bias")
    keys = _FILTERS | _window(rank) | weights | multiplier | _ONE | _unused(*_KERNEL)
    names = _names("depthwise_kernel", "pointwise_kernel", "bias")
    return LayerSpec(getattr(L, f"SeparableConv{rank}D"), keys, names, convolution)


def _pool(kind: str, rank: int) -> LayerSpec:
    keys = (
        _same(readers.sizes(rank), "pool_size", default=(2,) * rank)
        | _same(readers.maybe(readers.sizes(rank)), "strides", default=None)
        | _same(readers.choice("valid", "same"), "padding", default="valid")
    )
    return LayerSpec(getattr(L, f"{kind}Pooling{rank}D"), keys | _FORMAT, finish=pooling)


def _global(kind: str, rank: int) -> LayerSpec:
    return LayerSpec(
        getattr(L, f"Global{kind}Pooling{rank}D"), _FORMAT | _optional(readers.flag, "keepdims")
    )


_RECURRENT = (
    _same(readers.size, "units")
    | _optional(readers.flag, "return_sequences", "return_state", "go_backwards", "stateful")
    | _optional(readers.number, "dropout", "recurrent_dropout")
    | _of("kernel", "recurrent", "bias")
    | {
        "unroll": ConfigKey(None, readers.flag),
        "implementation": ConfigKey(None, readers.choice(0, 1, 2)),
    }
)
_PLAIN_RECURRENT = _RECURRENT | _LINEAR
_GATED = _PLAIN_RECURRENT | {
    "recurrent_activation": ConfigKey(
        "recurrent_activation", readers.activation, legacy_layers.legacy_hard_sigmoid
    )
}
_FORGET = _optional(readers.flag, "unit_forget_bias")
_CELLS = _names("kernel", "recurrent_kernel", "bias")
_CUDNN: dict[str, Any] = {"recurrent_activation": "sigmoid", "activation": "tanh"}
_DROPOUT = _same(readers.number, "rate") | _optional(readers.maybe(readers.integer), "seed")
_RENORM = ("*moving_stddev", "*renorm_mean", "*renorm_stddev")
_BATCH_NORM = LayerSpec(
    BatchNorm,
    _same(readers.axes, "axis", default=-1)
    | _same(readers.number, "epsilon", default=1e-3)
    | {"momentum": ConfigKey("decay", readers.number, 0.99)}
    | _optional(readers.flag, "center", "scale", "synchronized")
    | {key: value for key, value in _of("beta", "gamma").items() if key != "activity_regularizer"}
    | _optional(readers.initializer2, "moving_mean_initializer", "moving_variance_initializer")
    | _optional(readers.flag, "renorm")
    | {
        "renorm_momentum": ConfigKey("renorm_decay", readers.maybe(readers.number)),
        "renorm_clipping": ConfigKey("renorm_clipping", readers.maybe(readers.clipping)),
    }
    # Which samples shared statistics in training does not matter at inference.
    | {"virtual_batch_size": ConfigKey("virtual_batch_size", readers.maybe(readers.size))}
    | _unused("fused"),
    lambda config: (*_affine(True)(config), *(_RENORM if config.get("renorm") else ())),
    keras2_batch_norm,
)


def _sided(name: str, kind: str, rank: int) -> LayerSpec:
    keys = {name: ConfigKey(name, readers.margins(rank), REQUIRED)}
    return LayerSpec(
        getattr(L, f"{kind}{rank}D"), keys | (_FORMAT if (kind, rank) != ("Cropping", 1) else {})
    )


_POOLS = [(kind, rank) for kind in ("Max", "Average") for rank in (1, 2, 3)]
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")

TABLE: dict[str, LayerSpec] = {
    "Dense": LayerSpec(
        L.Dense, _same(readers.size, "units") | _LINEAR | _of("kernel", "bias"), _names("kernel", "bias")
    ),
    **{f"Conv{rank}D": _convolution(rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _transposed(rank) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
    "ConvLSTM2D": LayerSpec(
        L.ConvLSTM2D,
        _FILTERS
        | _window(2)
        | {key: value for key, value in _GATED.items() if key not in ("units", "implementation")}
        | _FORGET,
        _CELLS,
        convolution,
    ),
    **{f"{kind}Pooling{rank}D": _pool(kind, rank) for kind, rank in _POOLS},
    **{f"Global{kind}Pooling{rank}D": _global(kind, rank) for kind, rank in _POOLS},
    "Activation": LayerSpec(L.Activation, _same(readers.activation, "activation")),
    "Dropout": LayerSpec(
        L.Dropout, _DROPOUT | _optional(readers.maybe(readers.batch_shape), "noise_shape")
    ),
    "SpatialDropout1D": LayerSpec(L.SpatialDropout1D, _DROPOUT | _unused("noise_shape")),
    **{
        f"SpatialDropout{rank}D": LayerSpec(getattr(L, f"SpatialDropout{rank}D"), _DROPOUT | _FORMAT)
        for rank in (2, 3)
    },
    "GaussianDropout": LayerSpec(L.GaussianDropout, _DROPOUT),
    "AlphaDropout": LayerSpec(L.AlphaDropout, _DROPOUT | _unused("noise_shape")),
    "GaussianNoise": LayerSpec(
        L.GaussianNoise,
        _same(readers.number, "stddev") | _optional(readers.maybe(readers.integer), "seed"),
    ),
    "ActivityRegularization": LayerSpec(
        L.ActivityRegularization, _same(readers.number, "l1", "l2", default=0.0)
    ),
    "Masking": LayerSpec(L.Masking, _same(readers.number, "mask_value", default=0.0)),
    "Flatten": LayerSpec(L.Flatten, _FORMAT),
    "Reshape": LayerSpec(L.Reshape, _same(readers.shape, "target_shape")),
    "Permute": LayerSpec(L.Permute, _same(lambda dims: [readers.size(dim) for dim in dims], "dims")),
    "RepeatVector": LayerSpec(L.RepeatVector, _same(readers.size, "n")),
    "Embedding": LayerSpec(
        L.Embedding,
        _same(readers.size, "input_dim", "output_dim")
        | _of("embeddings")
        | _optional(readers.flag, "mask_zero"),
        _names("embeddings"),
    ),
    "LSTM": LayerSpec(L.LSTM, _GATED | _FORGET, _CELLS),
    "GRU": LayerSpec(L.GRU, _GATED | _same(readers.flag, "reset_after", default=False), _CELLS),
    "SimpleRNN": LayerSpec(L.SimpleRNN, _PLAIN_RECURRENT, _CELLS),
    "CuDNNLSTM": LayerSpec(L.LSTM, _RECURRENT | _FORGET, _CELLS, cudnn, _CUDNN),
    "CuDNNGRU": LayerSpec(L.GRU, _RECURRENT, _CELLS, cudnn, _CUDNN | {"reset_after": True}),
    "Bidirectional": LayerSpec(
        L.Bidirectional,
        _INNER
        | {
            "merge_mode": ConfigKey(
                "merge_mode", readers.choice("sum", "mul", "concat", "ave", None), "concat"
            ),
            "backward_layer": ConfigKey("backward_layer", lambda layer: layer),
        },
        finish=bidirectional,
    ),
    "TimeDistributed": LayerSpec(L.TimeDistributed, _INNER, finish=time_distributed),
    **dict.fromkeys((*BATCH_NORMS, "SyncBatchNormalization"), _BATCH_NORM),
    "LayerNormalization": LayerSpec(
        L.LayerNormalization,
        _same(readers.axes, "axis", default=-1)
        | _same(readers.number, "epsilon", default=1e-3)
        | _optional(readers.flag, "center", "scale")
        | _of("beta", "gamma"),
        _affine(False),
    ),
    **{name: LayerSpec(getattr(L, name), finish=merging) for name in _MERGES},
    "Concatenate": LayerSpec(L.Concatenate, _same(readers.integer, "axis", default=-1), finish=merging),
    "Dot": LayerSpec(L.Dot, _same(readers.axes, "axes") | _optional(readers.flag, "normalize")),
    "Merge": keras1_table.TABLE["Merge"],
    **{f"ZeroPadding{rank}D": _sided("padding", "ZeroPadding", rank) for rank in (1, 2, 3)},
    **{f"Cropping{rank}D": _sided("cropping", "Cropping", rank) for rank in (1, 2, 3)},
    "UpSampling1D": LayerSpec(L.UpSampling1D, _same(readers.size, "size", default=2)),
    "UpSampling2D": LayerSpec(
        L.UpSampling2D,
        _same(readers.sizes(2), "size", default=2)
        | _FORMAT
        | _optional(readers.choice("nearest", "bilinear"), "interpolation"),
        finish=upsampling,
    ),
    "UpSampling3D": LayerSpec(L.UpSampling3D, _same(readers.sizes(3), "size", default=2) | _FORMAT),
    "ReLU": LayerSpec(
        L.ReLU,
        _optional(readers.maybe(readers.number), "max_value")
        | _optional(readers.number, "negative_slope", "threshold"),
    ),
    "LeakyReLU": LayerSpec(L.LeakyReLU, {"alpha": ConfigKey("negative_slope", readers.number, 0.3)}),
    "ELU": LayerSpec(L.ELU, _same(readers.number, "alpha", default=1.0)),
    "Softmax": LayerSpec(L.Softmax, _same(readers.axes, "axis", default=-1)),
    "ThresholdedReLU": keras1_table.TABLE["ThresholdedReLU"],
    "PReLU": LayerSpec(
        L.PReLU,
        _of("alpha")
        | _optional(readers.maybe(lambda axes: [readers.integer(axis) for axis in axes]), "shared_axes"),
        _names("alpha"),
    ),
    "Rescaling": LayerSpec(
        L.Rescaling, _same(readers.number, "scale") | _same(readers.number, "offset", default=0.0)
    ),
}
