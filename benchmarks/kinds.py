"""What is measured against which peer, in the words of the rows, tables and figures."""

from __future__ import annotations

LAYER = "Layer, training step, against Keras' layer"
LAYER_OTHERS = "Layer, training step, of many shapes, against Keras' layer"
LAYER_XLA = "Layer, training step compiled by XLA, against Keras' layer"
LAYER_TF_KERAS = "Layer, training step, against tf_keras' layer"
LAYER_TORCH = "Layer, training step, against torch's layer"
LAYER_KERNEL = "Layer, training step, against the bare kernel"
LAYER_FROZEN = "Layer, training step of a frozen one, against Keras' layer"
INFERENCE = "Layer, inference, against Keras' layer"
INFERENCE_KERNEL = "Layer, inference, against the bare kernel"
MODEL = "Model, training step, converted against stock"
FIRST_STEP = "Model, first training step, converted against stock"
MODEL_ANY = "Model, training step for batches of any size, converted against stock"
FIRST_STEP_ANY = "Model, first training step for batches of any size, converted against stock"
MODEL_FROZEN = "Model, training step with batch norms frozen, converted against stock"
MODEL_XLA = "Model, training step compiled by XLA, converted against stock"
POPULATION = "population_statistics, a batch, against a forward pass in training"

SAVED_MODEL = "SavedModel, as exported, against Keras' export"
FREEZE = "SavedModel, with freeze=True, against Keras' export"
FROZEN = "SavedModel, constants, against Keras' export frozen"
ONNX_RUNTIME = "ONNX Runtime, folded model, against Keras' export"
OPENVINO = "OpenVINO, folded model, against Keras' export"
LITERT = "LiteRT, folded model, against Keras' export"
FOLD = "tfbn.fold against keras.models.clone_model"

# Pixels: the size of images at which all networks are served.
SERVED_SIZE = 160


def images(network: str, batch: int, size: int) -> str:
    """The name of a row: a network and its inputs."""
    return f"{network}, {batch} images of {size} px"
