"""VariableScopeLayer saved, loaded, cloned and exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf1_layers import X, Y, network
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


def test_save_load_clone_and_export(tmp_path):
    inputs = keras.Input([3])
    model = keras.Model(inputs, VariableScopeLayer(network, arguments={"units": 2})(inputs))
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert list(loaded.layers[1].variables_by_name) == list(model.layers[1].variables_by_name)
    loaded.fit(X, Y, verbose=0)
    model.fit(X, Y, verbose=0)
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(X), model(X))
    model.save_weights(tmp_path / "model.weights.h5")
    clone.set_weights([np.zeros_like(weight) for weight in clone.get_weights()])
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone(X), model(X))
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(served.serve(X[:1]), model(X[:1]), rtol=1e-5, atol=1e-5)
    assert len(served.variables) >= 15


def test_saved_in_sequential_and_unregistered_function(tmp_path):
    model = keras.Sequential([VariableScopeLayer(plain)])
    model.build([None, 3])
    model.save(tmp_path / "model.keras")
    with pytest.raises(Exception, match="plain"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"plain": plain})
    np.testing.assert_array_equal(loaded(X), model(X))


def plain(x):
    return x @ tf1.get_variable("w", [3, 2])


def test_integers_structures_and_unknown_sizes(tmp_path):
    keras.saving.register_keras_serializable("tests")(embed)
    words = keras.Input([None], dtype="int32")
    factor = keras.Input([1])
    layer = VariableScopeLayer(embed)
    outputs = layer({"words": words, "factor": factor})
    assert outputs["rows"].shape == (None, None, 4)
    assert outputs["pair"][0].shape == (None, 4)
    model = keras.Model([words, factor], outputs)
    table = layer.variables_by_name["embedding/table"].numpy()
    ids, by = np.array([[1, 2], [3, 3]]), np.float32([[2], [3]])
    result = model([ids, by])
    np.testing.assert_allclose(result["pair"][0], table[ids].sum(1) * by, rtol=1e-5)
    np.testing.assert_allclose(result["pair"][1], table[ids].sum((1, 2)), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([ids, by])["rows"], result["rows"])
    rebuilt = VariableScopeLayer(embed)
    rebuilt.build_from_config(layer.get_build_config())
    assert len(rebuilt.weights) == 1


def embed(inputs):
    with tf1.variable_scope("embedding"):
        table = tf1.get_variable("table", [10, 4])
    rows = tf.nn.embedding_lookup(table, inputs["words"])
    total = tf.reduce_sum(rows, 1)
    return {"rows": rows, "pair": (total * inputs["factor"], tf.reduce_sum(total, 1))}
