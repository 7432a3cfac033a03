"""The layers of Keras 0.3.3 to 1.2.2: a `LayerSpec` for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from ....layer import BatchNorm
from . import config_readers as readers
from . import legacy_layers
from .batch_norms import keras1_batch_norm
from .convolutions import deconvolution, separable1
from .keras1_specs import (
    INIT,
    LAST,
    LINEAR,
    ORDERING,
    always,
    changed,
    convolution_spec,
    image_spec,
    pool_spec,
    sized,
    weight_keys,
    weights,
)
from .layer_spec import REQUIRED, ConfigKey, LayerSpec, Names
from .merges import MODES, dot_axes, merge
from .recurrent import bidirectional, gate_names, keras1_recurrent
from .wrappers import time_distributed

L = keras.layers


def _batch_norm_names(config: Mapping[str, Any]) -> Names:
    return ("gamma", "beta", "*running_mean", "*running_std")


_DENSE = LayerSpec(
    L.Dense, {"output_dim": ConfigKey("units", readers.size, REQUIRED)} | LINEAR, weights("W", "b")
)


_CONV1D = convolution_spec(L.Conv1D, 1)
_CONV2D = convolution_spec(L.Conv2D, 2)


def _dropout(layer: type, ordering: bool = False, name: str = "p", new: str = "rate") -> LayerSpec:
    keys = {name: ConfigKey(new, readers.number, REQUIRED)}
    return LayerSpec(layer, keys | ({"dim_ordering": ORDERING} if ordering else {}))


_RECURRENT = {
    "output_dim": ConfigKey("units", readers.size, REQUIRED),
    "inner_init": ConfigKey("recurrent_initializer", readers.initializer1),
    "activation": ConfigKey("activation", readers.activation, readers.activation("tanh")),
    **{name: ConfigKey(name, readers.flag) for name in ("return_sequences", "go_backwards", "stateful")},
    "dropout_W": ConfigKey("dropout", readers.number),
    "dropout_U": ConfigKey("recurrent_dropout", readers.number),
    "consume_less": ConfigKey(None, readers.choice("cpu", "mem", "gpu")),
    "unroll": ConfigKey(None, readers.flag),  # how it runs, not what
    "truncate_gradient": ConfigKey(None, readers.integer),
    **INIT,
    **weight_keys("W:kernel", "U:recurrent", "b:bias", bias=False),
}
_GATED = _RECURRENT | {
    "inner_activation": ConfigKey(
        "recurrent_activation", readers.activation, legacy_layers.legacy_hard_sigmoid
    )
}
_FORGET = {
    "forget_bias_init": ConfigKey(
        "forget_bias", readers.choice("one", "zero", "uniform", "normal"), "one"
    )
}
_INNER = {"layer": ConfigKey("layer", lambda layer: layer, REQUIRED)}
_EPSILON = {
    "epsilon": ConfigKey("epsilon", readers.number),
    "mode": ConfigKey("mode", readers.choice(0, 1, 2), 0),
    "axis": ConfigKey("axis", readers.integer, -1),
    "momentum": ConfigKey("momentum", readers.number),
    **{
        f"{name}_regularizer": ConfigKey(f"{name}_regularizer", readers.regularizer1)
        for name in ("gamma", "beta")
    },
    "beta_init": ConfigKey("beta_init", readers.vector_initializer1, "zero"),
    "gamma_init": ConfigKey("gamma_init", readers.vector_initializer1, "one"),
}
_MERGE = {
    "mode": ConfigKey("mode", readers.choice(*MODES), "sum"),
    "concat_axis": ConfigKey("concat_axis", readers.integer, -1),
    "dot_axes": ConfigKey("dot_axes", dot_axes, -1),
    **{
        f"{name}_type": ConfigKey(None, readers.choice("raw"))
        for name in ("mode", "output_shape", "output_mask")
    },
}
_SHARED = {
    "shared_axes": ConfigKey(
        "shared_axes", readers.maybe(lambda axes: [readers.integer(axis) for axis in axes])
    )
}

TABLE: dict[str, LayerSpec] = {
    "Dense": _DENSE,
    "TimeDistributedDense": _DENSE,
    "Activation": LayerSpec(
        L.Activation, {"activation": ConfigKey("activation", readers.activation, REQUIRED)}
    ),
    "Dropout": _dropout(L.Dropout),
    "SpatialDropout1D": _dropout(L.SpatialDropout1D),
    "SpatialDropout2D": _dropout(L.SpatialDropout2D, True),
    "SpatialDropout3D": _dropout(L.SpatialDropout3D, True),
    "GaussianDropout": _dropout(L.GaussianDropout),
    "GaussianNoise": _dropout(L.GaussianNoise, name="sigma", new="stddev"),
    "ActivityRegularization": LayerSpec(
        L.ActivityRegularization, {name: ConfigKey(name, readers.number, 0.0) for name in ("l1", "l2")}
    ),
    "Masking": LayerSpec(L.Masking, {"mask_value": ConfigKey("mask_value", readers.number, 0.0)}),
    "Flatten": LayerSpec(L.Flatten, more=LAST),  # never reordered in Keras 1
    "Reshape": LayerSpec(
        L.Reshape, {"target_shape": ConfigKey("target_shape", readers.shape, REQUIRED)}
    ),
    "Permute": LayerSpec(
        L.Permute,
        {"dims": ConfigKey("dims", lambda dims: [readers.size(dim) for dim in dims], REQUIRED)},
    ),
    "RepeatVector": LayerSpec(L.RepeatVector, {"n": ConfigKey("n", readers.size, REQUIRED)}),
    "Merge": LayerSpec(L.Add, _MERGE, finish=merge),
    "Embedding": LayerSpec(
        L.Embedding,
        {
            "input_dim": ConfigKey("input_dim", readers.size, REQUIRED),
            "output_dim": ConfigKey("output_dim", readers.size, REQUIRED),
            "init": ConfigKey("embeddings_initializer", readers.initializer1),
            "mask_zero": ConfigKey("mask_zero", readers.flag),
            "dropout": ConfigKey(None, readers.choice(0, 0.0, False)),
            **weight_keys("W:embeddings", bias=False),
        },
        always("W"),
    ),
    "Convolution1D": _CONV1D,
    "Convolution2D": _CONV2D,
    "Convolution3D": convolution_spec(L.Conv3D, 3),
    "AtrousConvolution1D": changed(
        _CONV1D, atrous_rate=ConfigKey("dilation_rate", readers.sizes(1), (1,))
    ),
    "AtrousConvolution2D": changed(
        _CONV2D, atrous_rate=ConfigKey("dilation_rate", readers.sizes(2), (1, 1))
    ),
    "Deconvolution2D": changed(
        _CONV2D,
        sized(deconvolution),
        layer=L.Conv2DTranspose,
        output_shape=ConfigKey("output_shape", readers.batch_shape, REQUIRED),
    ),
    "SeparableConvolution2D": LayerSpec(
        L.SeparableConv2D,
        {key: value for key, value in _CONV2D.keys.items() if key[:2] not in ("W_", "in")}
        | weight_keys("depthwise:depthwise", "pointwise:pointwise", "b:bias")
        | {
            "depth_multiplier": ConfigKey("depth_multiplier", readers.size, 1),
            "init": ConfigKey("depthwise_initializer", readers.initializer1),
        },
        weights("depthwise_kernel", "pointwise_kernel", "b"),
        sized(separable1),
    ),
    **{
        f"{kind}Pooling{rank}D": pool_spec(getattr(L, f"{kind}Pooling{rank}D"), rank)
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"Global{kind}Pooling{rank}D": LayerSpec(
            getattr(L, f"Global{kind}Pooling{rank}D"),
            {"dim_ordering": ORDERING} if rank > 1 else {},
            more=LAST,
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"ZeroPadding{rank}D": image_spec(
            getattr(L, f"ZeroPadding{rank}D"), "padding", "padding", readers.margins(rank), 1, rank
        )
        for rank in (1, 2, 3)
    },
    **{
        f"Cropping{rank}D": image_spec(
            getattr(L, f"Cropping{rank}D"), "cropping", "cropping", readers.margins(rank), REQUIRED, rank
        )
        for rank in (1, 2, 3)
    },
    "UpSampling1D": image_spec(L.UpSampling1D, "length", "size", readers.size, 2, 1),
    "UpSampling2D": image_spec(L.UpSampling2D, "size", "size", readers.sizes(2), 2, 2),
    "UpSampling3D": image_spec(L.UpSampling3D, "size", "size", readers.sizes(3), 2, 3),
    "LSTM": LayerSpec(L.LSTM, _GATED | _FORGET, gate_names("icfo"), keras1_recurrent),
    "GRU": LayerSpec(L.GRU, _GATED, gate_names("zrh"), keras1_recurrent, {"reset_after": False}),
    "SimpleRNN": LayerSpec(L.SimpleRNN, _RECURRENT, always("W", "U", "b")),
    "Bidirectional": LayerSpec(
        L.Bidirectional,
        _INNER
        | {
            "merge_mode": ConfigKey(
                "merge_mode", readers.choice("sum", "mul", "concat", "ave", None), "concat"
            )
        },
        finish=bidirectional,
    ),
    "TimeDistributed": LayerSpec(L.TimeDistributed, _INNER, finish=time_distributed),
    "BatchNormalization": LayerSpec(BatchNorm, _EPSILON, _batch_norm_names, keras1_batch_norm),
    "LeakyReLU": LayerSpec(L.LeakyReLU, {"alpha": ConfigKey("negative_slope", readers.number, 0.3)}),
    "ELU": LayerSpec(L.ELU, {"alpha": ConfigKey("alpha", readers.number, 1.0)}),
    "ThresholdedReLU": LayerSpec(
        legacy_layers.ThresholdedReLU, {"theta": ConfigKey("theta", readers.number, 1.0)}
    ),
    "PReLU": LayerSpec(
        L.PReLU,
        {"init": ConfigKey("alpha_initializer", readers.initializer1)} | _SHARED,
        always("alphas"),
    ),
    "ParametricSoftplus": LayerSpec(
        legacy_layers.ParametricSoftplus,
        {f"{name}_init": ConfigKey(None, readers.number) for name in ("alpha", "beta")} | _SHARED,
        always("alphas", "betas"),
    ),
    "SReLU": LayerSpec(
        legacy_layers.SReLU,
        {
            f"{name}_init": ConfigKey(None, readers.initializer1)
            for name in ("t_left", "a_left", "t_right", "a_right")
        }
        | _SHARED,
        always("t_left", "a_left", "t_right", "a_right"),
    ),
}
