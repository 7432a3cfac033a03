"""What several layers of Keras 1 share: keys of configurations, names of weights, kinds of specs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from . import config_readers as readers
from .convolutions import keras1_convolution, pooling
from .layer_spec import REQUIRED, ConfigKey, LayerSpec, Names

L = keras.layers


def weights(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    """Names of weights, the bias last, which `bias=False` leaves out."""
    return lambda config: names if config.get("bias", True) else names[:-1]


def always(*names: str) -> Callable[[Mapping[str, Any]], Names]:
    return lambda config: names


def weight_keys(*kinds: str, bias: bool = True) -> dict[str, ConfigKey]:
    """The keys about weights; `kinds` are pairs of the old letter and the new name."""
    keys = {"activity_regularizer": ConfigKey("activity_regularizer", readers.activity1)}
    for kind in kinds:
        letter, name = kind.split(":")
        keys[f"{letter}_regularizer"] = ConfigKey(f"{name}_regularizer", readers.regularizer1)
        keys[f"{letter}_constraint"] = ConfigKey(f"{name}_constraint", readers.constraint1)
    if bias:
        keys["bias"] = ConfigKey("use_bias", readers.flag)
    return keys


ACTIVATION = {"activation": ConfigKey("activation", readers.activation)}
INIT = {"init": ConfigKey("kernel_initializer", readers.initializer1)}
LINEAR = INIT | ACTIVATION | weight_keys("W:kernel", "b:bias")
ORDERING = ConfigKey(
    "data_format", readers.renamed({"th": "channels_first", "tf": "channels_last"}), REQUIRED
)
LAST = {"data_format": "channels_last"}  # Keras 3 has a global default
BORDER = ConfigKey("padding", readers.choice("valid", "same"), "valid")


def convolution_spec(layer: type, rank: int, **more: ConfigKey) -> LayerSpec:
    """A convolution, whose length, rows and columns were settings of their own."""
    keys = (
        {"nb_filter": ConfigKey("filters", readers.size, REQUIRED), "border_mode": BORDER}
        | LINEAR
        | more
    )
    if rank == 1:
        keys |= {
            "filter_length": ConfigKey("kernel_size", readers.sizes(1), REQUIRED),
            "subsample_length": ConfigKey("strides", readers.sizes(1), (1,)),
        }
    else:
        sizes = [("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3")][rank - 2]
        keys |= {
            name: ConfigKey(f"size:{number}", readers.size, REQUIRED)
            for number, name in enumerate(sizes)
        }
        keys |= {
            "subsample": ConfigKey("strides", readers.sizes(rank), (1,) * rank),
            "dim_ordering": ORDERING,
        }
    return LayerSpec(layer, keys, weights("W", "b"), sized(keras1_convolution))


def sized(finish: Callable[..., Any]) -> Callable[..., Any]:
    """Before `finish`, put rows and columns together to a kernel_size."""

    def finish_sized(spec: LayerSpec, context: Any, arguments: dict[str, Any]) -> Any:
        sizes = [arguments.pop(key) for key in sorted(arguments) if key.startswith("size:")]
        return finish(spec, context, arguments | ({"kernel_size": tuple(sizes)} if sizes else {}))

    return finish_sized


def changed(
    spec: LayerSpec,
    finish: Any = None,
    weights: Any = None,
    layer: type | None = None,
    **keys: ConfigKey,
) -> LayerSpec:
    return LayerSpec(
        layer or spec.layer, spec.keys | keys, weights or spec.weights, finish or spec.finish
    )


def pool_spec(layer: type, rank: int) -> LayerSpec:
    keys = {"border_mode": BORDER}
    if rank == 1:
        keys |= {
            "pool_length": ConfigKey("pool_size", readers.sizes(1), (2,)),
            "stride": ConfigKey("strides", readers.maybe(readers.sizes(1)), None),
        }
    else:
        keys |= {
            "pool_size": ConfigKey("pool_size", readers.sizes(rank), (2,) * rank),
            "strides": ConfigKey("strides", readers.maybe(readers.sizes(rank)), None),
            "dim_ordering": ORDERING,
        }
    return LayerSpec(layer, keys, finish=pooling, more=LAST)


def image_spec(
    layer: type, old: str, new: str, read: readers.Reader, default: Any, rank: int
) -> LayerSpec:
    keys = {old: ConfigKey(new, read, default)}
    if rank > 1:
        return LayerSpec(layer, keys | {"dim_ordering": ORDERING})
    return LayerSpec(layer, keys, more=LAST if layer is L.ZeroPadding1D else {})
