"""What a batch norm moves across, and what its map must be for that."""

import keras
import numpy as np

from folds import IMAGE

L, ops = keras.layers, keras.ops

# Axes of 1 are the last but one. TensorFlow 2.21's product of a tensor (5, 1, 8, 4) and a matrix, which
# Dense computes in Keras before 3.15, overruns memory with oneDNN.

# What a map must be to cross: a scale of any sign and an offset, or less.
ANY, POSITIVE, PURE, STRAIGHT = (
    {},
    {"positive": True},
    {"offset": False},
    {"positive": True, "offset": False},
)
ACROSS = {
    "Identity": (L.Identity, ANY),
    "Dropout": (lambda: L.Dropout(0.5), ANY),
    "SpatialDropout1D": (lambda: L.SpatialDropout1D(0.5), ANY),
    "SpatialDropout2D": (lambda: L.SpatialDropout2D(0.5), ANY),
    "SpatialDropout3D": (lambda: L.SpatialDropout3D(0.5), ANY),
    "AlphaDropout": (lambda: L.AlphaDropout(0.5), ANY),
    "GaussianDropout": (lambda: L.GaussianDropout(0.5), ANY),
    "GaussianNoise": (lambda: L.GaussianNoise(0.5), ANY),
    "linear": (lambda: L.Activation("linear"), ANY),
    "relu": (lambda: L.Activation("relu"), STRAIGHT),
    "ReLU": (lambda: L.ReLU(negative_slope=0.1), STRAIGHT),
    "LeakyReLU": (L.LeakyReLU, STRAIGHT),
    "PReLU": (lambda: L.PReLU(shared_axes=[1]), STRAIGHT),
    "ops.relu": (lambda: keras.ops.relu, STRAIGHT),
    "UpSampling1D": (L.UpSampling1D, ANY),
    "UpSampling2D": (L.UpSampling2D, ANY),
    "UpSampling2D bilinear": (lambda: L.UpSampling2D((2, 3), interpolation="bilinear"), ANY),
    "UpSampling3D": (L.UpSampling3D, ANY),
    "Permute": (lambda: L.Permute((2, 1, 3)), ANY),
    "Reshape": (lambda: L.Reshape((-1, 4)), ANY),
    "ops.reshape": (lambda: lambda x: keras.ops.reshape(x, (-1, 72, 4)), ANY),
    "GlobalAveragePooling2D keepdims": (lambda: L.GlobalAveragePooling2D(keepdims=True), ANY),
    "activations.relu": (lambda: keras.activations.relu, STRAIGHT),
    "activations.relu sloped": (
        lambda: lambda x: keras.activations.relu(x, negative_slope=0.1),
        STRAIGHT,
    ),
    "activations.leaky_relu": (lambda: keras.activations.leaky_relu, STRAIGHT),
    "ops.leaky_relu": (lambda: lambda x: ops.leaky_relu(x, 0.3), STRAIGHT),
    "convert_to_tensor": (lambda: ops.convert_to_tensor, ANY),
    "cast to its own type": (lambda: lambda x: ops.cast(x, x.dtype), ANY),
    "copy": (lambda: ops.copy, ANY),
    "stop_gradient": (lambda: ops.stop_gradient, ANY),
    "-x": (lambda: lambda x: -x, ANY),
    "transpose": (lambda: lambda x: ops.transpose(x, (0, 2, 1, -1)), ANY),
    "swapaxes": (lambda: lambda x: ops.swapaxes(x, 1, -2), ANY),
    "moveaxis": (lambda: lambda x: ops.moveaxis(x, (1, 2), (2, 1)), ANY),
    "expand_dims": (lambda: lambda x: ops.expand_dims(x, -2), ANY),
    "squeeze": (lambda: lambda x: ops.squeeze(x[:, 1:2], 1), ANY),
    "mean": (lambda: lambda x: ops.mean(x, (1, -2)), ANY),
    "mean keepdims": (lambda: lambda x: ops.mean(x, 2, keepdims=True), ANY),
    "sum": (lambda: lambda x: ops.sum(x, (2, 1)), ANY),
    "sum keepdims": (lambda: lambda x: ops.sum(x, [-2], keepdims=True), ANY),
    "max": (lambda: lambda x: ops.max(x, 2), POSITIVE),
    "min": (lambda: lambda x: ops.min(x, 2, keepdims=True), POSITIVE),
    "average_pool": (lambda: lambda x: ops.average_pool(x, 3, 2, "same"), ANY),
    "max_pool": (lambda: lambda x: ops.max_pool(x, 3, 2, "same"), POSITIVE),
    "resize": (lambda: lambda x: ops.image.resize(x, (12, 5)), ANY),
    "resize nearest": (lambda: lambda x: ops.image.resize(x, (5, 12), "nearest"), ANY),
    "pad": (lambda: lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]), PURE),
    "pad with copies": (lambda: lambda x: ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], "reflect"), ANY),
    "max_pool of pad with -inf": (
        lambda: (
            lambda x: ops.max_pool(
                ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=-np.inf), 3
            )
        ),
        POSITIVE,
    ),
    "one row": (lambda: lambda x: x[:, -2], ANY),
    "every other column": (lambda: lambda x: x[..., 1::2, :], ANY),
    "half of the rows": (lambda: lambda x: ops.split(x, [3, 6], 1)[1], ANY),
    "x + 2": (lambda: lambda x: x + 2.0, ANY),
    "vector - x": (lambda: lambda x: keras.ops.subtract(np.arange(4, dtype="float32"), x), ANY),
    "x - number": (lambda: lambda x: keras.ops.subtract(x, 0.5), ANY),
    "x * vector": (lambda: lambda x: x * np.array([[2, -3, 1, 0.5]], "float32"), ANY),
    "x / 4": (lambda: lambda x: x / 4.0, ANY),
    "divide": (lambda: lambda x: keras.ops.divide(x, 4.0), ANY),
    "true_divide": (lambda: lambda x: keras.ops.true_divide(x, 4.0), ANY),
}


for rank in (1, 2, 3):
    ACROSS |= {
        f"{name}{rank}D {label}".strip(): (
            lambda kind=f"{name}{rank}D", given=arguments: getattr(L, kind)(**given),
            need,
        )
        for name, label, arguments, need in (
            ("AveragePooling", "valid", {"pool_size": 2}, ANY),
            ("AveragePooling", "same", {"pool_size": 3, "strides": 2, "padding": "same"}, ANY),
            ("MaxPooling", "valid", {}, POSITIVE),
            ("MaxPooling", "same", {"pool_size": 3, "strides": 2, "padding": "same"}, POSITIVE),
            ("GlobalAveragePooling", "", {}, ANY),
            ("GlobalMaxPooling", "", {}, POSITIVE),
            ("Cropping", "", {}, ANY),
            ("ZeroPadding", "", {}, PURE),
        )
    }  # fmt: skip


SHAPES = {"1D": (9, 4), "3D": (5, 6, 5, 4)}


def shape_for(name):
    return next((shape for rank, shape in SHAPES.items() if rank in name), IMAGE)
