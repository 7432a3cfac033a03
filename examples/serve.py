"""Classify images with an exported SavedModel: TensorFlow alone, neither tfbn nor Keras' model.

python examples/serve.py SAVED_MODEL IMAGES.npy PREDICTIONS.npy
"""

import sys

import numpy as np
import tensorflow as tf


def serve(saved_model: str, images: str, predictions: str) -> None:
    """Write the first output of the signature `serving_default` for an array of inputs.

    Args:
        saved_model: directory that `tfbn.export` wrote, of a model with one input.
        images: `.npy` file with the inputs, shape [batch, …].
        predictions: `.npy` file to write, shape [batch, classes].
    """
    signature = tf.saved_model.load(saved_model).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    outputs = signature(**{name: tf.constant(np.load(images))})
    np.save(predictions, outputs["output_0"].numpy())
    if "tfbn" in sys.modules:
        raise RuntimeError("serving must not need tfbn, and something imported it")


if __name__ == "__main__":
    serve(*sys.argv[1:])
