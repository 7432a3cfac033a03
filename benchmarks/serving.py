"""Folded SavedModels against unfolded ones, and what folding costs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from measure import Row, Run, compare

import tfbn

v1 = tf.compat.v1

MODELS = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "InceptionV3",
    "InceptionResNetV2",
    "Xception",
    "NASNetMobile",
    "EfficientNetB0",
    "EfficientNetV2B0",
)
BATCH = 8
SIZE = 160  # pixels; all of them take it


def served(path: Path, x: tf.Tensor) -> Run:
    """A SavedModel's signature as `tf.saved_model.load` gives it."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return lambda: signature(**{name: x})["output_0"].numpy()  # noqa: PLW0108


def frozen(path: Path, x: tf.Tensor) -> Run:
    """The same with variables made constants, which TensorFlow's own optimizer then folds."""
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        (given,), output = signature.inputs.values(), signature.outputs["output_0"]
        constants = v1.graph_util.convert_variables_to_constants(
            session, session.graph_def, [output.name.split(":")[0]]
        )
    wrapped = v1.wrap_function(lambda: v1.import_graph_def(constants, name=""), [])
    run = wrapped.prune(wrapped.graph.get_tensor_by_name(given.name), output.name)
    return lambda: run(x).numpy()


def rows(rounds: int) -> list[Row]:
    x = tf.constant(np.random.default_rng(0).uniform(0, 1, (BATCH, SIZE, SIZE, 3)), tf.float32)
    found = []
    for name in MODELS:
        model = getattr(keras.applications, name)(weights=None, input_shape=(SIZE, SIZE, 3))
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / kind for kind in ("folded", "plain")]
            for path, fold in zip(paths, (True, False), strict=True):
                tfbn.export(model, path, fold=fold)
            folded, plain = (served(path, x) for path in paths)
            found.append(compare(f"{name} served, folded vs not", folded, plain, rounds))
            constant = frozen(paths[1], x)
            found.append(compare(f"{name} served, folded vs frozen", folded, constant, rounds))
        keras.backend.clear_session()
    for kind in ("not", "frozen"):
        ratios = [row.ratio for row in found if row.name.endswith(f"folded vs {kind}")]
        mean = float(np.exp(np.mean(np.log(ratios))))
        found.append(Row(f"geometric mean of {len(ratios)}, folded vs {kind}", 1.0, mean))
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))

    def clone() -> None:
        keras.models.clone_model(model).set_weights(model.get_weights())

    found.append(compare("fold vs clone_model", lambda: tfbn.fold(model), clone, max(3, rounds // 10)))
    return found
