"""Folded SavedModels, and other runtimes, against Keras' export; the time of `tfbn.fold`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import kinds
import numpy as np
import runtimes
import tensorflow as tf
from measure import Row, Run, compare, tell

import tfbn

v1 = tf.compat.v1

MODELS = (
    "MobileNetV2",
    "ResNet50",
    "DenseNet121",
    "EfficientNetB0",
    "MobileNet",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "ResNet50V2",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "NASNetMobile",
    "EfficientNetV2B0",
)
BATCH = 8
OTHER_SIZES = {"MobileNetV2": (96, 224), "ResNet50": (96, 224)}
# The sizes at which other runtimes serve a network, too.
RUNTIME_SIZES = {"MobileNetV2": (96, 160, 224), "ResNet50": (96, 224), "EfficientNetB0": (160,)}
# Random weights amplify rounding in the deepest networks.
RTOL = 1e-4
CHAINS = (100, 200, 400)


def served(path: Path, x: tf.Tensor) -> Run:
    """Run a SavedModel's signature as `tf.saved_model.load` returns it."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return lambda: signature(**{name: x})["output_0"].numpy()  # noqa: PLW0108


def frozen(path: Path, x: tf.Tensor) -> Run:
    """Run the same with variables made constants, which TensorFlow's own graph optimizer then folds."""
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        (given,), output = signature.inputs.values(), signature.outputs["output_0"]
        constants = v1.graph_util.convert_variables_to_constants(
            session, session.graph_def, [output.name.split(":")[0]]
        )
    rename_functions(constants)
    wrapped = v1.wrap_function(lambda: v1.import_graph_def(constants, name=""), [])
    run = wrapped.prune(wrapped.graph.get_tensor_by_name(given.name), output.name)
    return lambda: run(x).numpy()


def rename_functions(graph: Any, suffix: str = "_frozen") -> None:
    """Rename a graph's functions, because this process may have others of the old names."""
    functions = graph.library.function
    names = {function.signature.name for function in functions}
    for function in functions:
        function.signature.name += suffix
    for node in (*graph.node, *(node for function in functions for node in function.node_def)):
        if node.op in names:
            node.op += suffix
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name += suffix


def trained(model: keras.Model) -> keras.Model:
    """The model with random batch norms, as after training; TensorFlow could optimise zeros away."""
    random = np.random.default_rng(0)
    for layer in tfbn.batch_norms(model).values():
        for variable, low, high in (
            (layer.gamma, 0.5, 1.5),
            (layer.beta, -0.5, 0.5),
            (layer.moving_mean, -0.5, 0.5),
            (layer.moving_variance, 0.5, 1.5),
        ):
            if variable is not None:
                variable.assign(random.uniform(low, high, variable.shape))
    return model


def of(name: str, size: int) -> keras.Model:
    return trained(getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3)))


def compared(name: str, size: int, rounds: int) -> Iterator[Row]:
    """Exports of `tfbn`, by default and with constants, against Keras' export, plain and frozen."""
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (BATCH, size, size, 3)), tf.float32)
    model = of(name, size)
    title = kinds.images(name, BATCH, size)
    with tempfile.TemporaryDirectory() as folder:
        ours, constants, peer = (Path(folder) / kind for kind in ("ours", "constants", "peer"))
        report = tfbn.export(model, ours, rtol=RTOL)
        model.export(str(peer), verbose=False)
        subject, plain = served(ours, x), served(peer, x)
        yield compare(kinds.SAVED_MODEL, title, subject, plain, rounds)
        if not report.frozen:
            tfbn.export(model, constants, rtol=RTOL, freeze=True)
            subject = served(constants, x)
            yield compare(kinds.FREEZE, title, subject, plain, rounds)
        yield compare(kinds.FROZEN, title, subject, frozen(peer, x), rounds)
        if size in RUNTIME_SIZES.get(name, ()):
            for runtime in runtimes.installed():
                path = Path(folder) / runtime.file
                tfbn.export(model, path, rtol=RTOL)
                subject = runtime.load(path, x.numpy(), runtimes.threads())
                yield compare(runtime.kind, title, subject, plain, rounds)
    keras.backend.clear_session()


def chain(length: int, custom: bool) -> keras.Model:
    """Residual blocks of a Dense layer and a batch norm, side by side or in a layer of their own."""
    x = inputs = keras.Input((8,))
    for _ in range(length):
        dense, normalization = keras.layers.Dense(8), keras.layers.BatchNormalization()
        x = x + (Block(dense, normalization)(x) if custom else normalization(dense(x)))
    return trained(keras.Model(inputs, x))


class Block(keras.layers.Layer):
    def __init__(self, dense: keras.layers.Layer, normalization: keras.layers.Layer) -> None:
        super().__init__()
        self.dense, self.normalization = dense, normalization

    def build(self, shape: tuple[int | None, ...]) -> None:
        for part in (self.dense, self.normalization):
            if not part.built:
                part.build(shape)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.normalization(self.dense(x), training=training)

    def get_config(self) -> dict[str, Any]:
        parts = {"dense": self.dense, "normalization": self.normalization}
        return {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Block:
        return cls(
            **{name: keras.saving.deserialize_keras_object(part) for name, part in config.items()}
        )


def cloned(name: str, model: keras.Model, rounds: int) -> Row:
    def clone() -> None:
        keras.models.clone_model(model).set_weights(model.get_weights())

    return compare(kinds.FOLD, name, lambda: tfbn.fold(model), clone, max(3, rounds // 10))


def rows(rounds: int, networks: int | None = None) -> Iterator[Row]:
    """All rows, or those of the first `networks` networks."""
    for name in MODELS[:networks]:
        for size in (kinds.SERVED_SIZE, *OTHER_SIZES.get(name, ())):
            yield from compared(name, size, rounds)
    yield cloned("MobileNetV2", of("MobileNetV2", 96), rounds)
    for length in CHAINS:
        for custom in (False, True):
            title = f"{length} residual blocks" + ", each a custom layer" * custom
            yield cloned(title, chain(length, custom), rounds)


if __name__ == "__main__":
    tell(rows(*map(int, sys.argv[1:])))
