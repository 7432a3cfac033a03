"""How data becomes batches: models that prepare it, declare its size, or take several kinds of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from population_data import assert_exact

L = keras.layers
X = reference.data((48, 5, 3), seed=2)


@keras.saving.register_keras_serializable("tests")
class Task(keras.Model):
    """Prepares what `fit` and `predict` get, as KerasHub's `PipelineModel` does."""

    def preprocess_samples(self, x, y=None, sample_weight=None):
        x = {"pixels": tf.cast(x["image"], "float32") / 255.0}
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


@pytest.mark.parametrize("with_targets", [False, True])
def test_a_task_preprocesses_its_data(with_targets):
    inputs = {"pixels": keras.Input((3,), name="pixels")}
    model = Task(inputs, tfbn.BatchNorm(name="bn")(inputs["pixels"]))
    images = np.random.default_rng(0).integers(0, 256, (70, 3)).astype("uint8")
    data = {"image": images}
    data = (data, np.zeros(70)) if with_targets else data
    statistics = tfbn.population_statistics(model, data, verbose=0)["bn"]
    assert_exact(statistics, images / np.float32(255))


def fixed(size):
    inputs = keras.Input(batch_shape=(size, 3))
    return keras.Model(inputs, tfbn.BatchNorm(name="bn")(inputs), name="fixed")


def test_arrays_are_cut_as_the_model_declares(unchanged):
    x = X[:, 0]
    assert_exact(tfbn.population_statistics(fixed(16), x, verbose=0)["bn"], x)
    model = fixed(20)
    message = (
        r"^data has 48 samples, and 'fixed' is declared for batches of 20, which leaves 8 over\. "
        r"Pass 40 samples, x\[:40\], or"
    )
    with unchanged(model), pytest.raises(ValueError, match=message):
        tfbn.recalibrate(model, x, verbose=0)


def test_a_short_batch_for_a_model_that_declares_its_size(unchanged):
    model = fixed(20)
    data = tf.data.Dataset.from_tensor_slices(X[:, 0]).batch(20)
    message = (
        r"^Batch 3 has 8 samples, and 'fixed' is declared for batches of 20\. .*drop_remainder=True"
    )
    with unchanged(model), pytest.raises(ValueError, match=message):
        tfbn.recalibrate(model, data, verbose=0)


def test_sparse_ragged_and_missing_inputs():
    sparse = keras.Input((5,), sparse=True)
    model = keras.Model(sparse, tfbn.BatchNorm(name="bn")(L.Dense(3)(sparse)))
    data = tf.data.Dataset.from_tensor_slices(X[:, :, 0]).batch(16).map(tf.sparse.from_dense)
    assert tfbn.population_statistics(model, data, verbose=0)["bn"].count == 48


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            X[0],
            r"^Batch 1 has the shape \(5, 3\), .*\. That is one sample, not a batch: use dataset",
        ),
        (
            X[:, :, :2],
            r"^Batch 1 has the shape \(32, 5, 2\), and 'model' takes \(None, 5, 3\)\. The",
        ),
    ],
    ids=["unbatched", "narrow"],
)
def test_data_of_other_shapes_is_named(data, message):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, tfbn.BatchNorm()(inputs), name="model")
    with pytest.raises(ValueError, match=message):
        tfbn.population_statistics(model, data, verbose=0)


def test_arrays_of_unequal_length():
    inputs = {name: keras.Input((3,), name=name) for name in "ab"}
    model = keras.Model(inputs, tfbn.BatchNorm()(inputs["a"] + inputs["b"]))
    with pytest.raises(ValueError, match=r"^data has arrays of 48, 9 samples\. Give each input as many"):
        tfbn.population_statistics(model, {"a": X[:, 0], "b": X[:9, 0]}, verbose=0)
