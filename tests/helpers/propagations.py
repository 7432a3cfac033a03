"""What a batch norm moves across, and what its map must be for that."""

import keras
import numpy as np

from folds import IMAGE

L = keras.layers

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
