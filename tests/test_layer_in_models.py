"""tfbn.BatchNorm in Keras models against Keras' own layer; its configuration and its files."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import reference
import tfbn
from sweeps import thinned

pytestmark = pytest.mark.both
L = keras.layers


def training_run(layer, model_kind, eagerly, jit):
    """Losses and weights of a short training run with `layer` in the middle of a model."""
    keras.utils.set_random_seed(1)
    dense, head = L.Dense(6), L.Dense(1)
    if model_kind == "sequential":
        model = keras.Sequential([keras.Input((4,)), dense, layer, head])
    elif model_kind == "functional":
        inputs = keras.Input((4,))
        model = keras.Model(inputs, head(layer(dense(inputs))))
    else:

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.parts = [dense, layer, head]

            def call(self, x):
                for part in self.parts:
                    x = part(x)
                return x

        model = Subclassed()
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=eagerly, jit_compile=jit)
    x = reference.data((48, 4), seed=2)
    history = model.fit(x, x[:, :1] * 2, batch_size=16, epochs=3, shuffle=False, verbose=0)
    return history.history["loss"], model.predict(x, verbose=0), layer.get_weights()


@pytest.mark.parametrize(
    ("model_kind", "eagerly", "jit"),
    thinned(
        3,
        ["sequential", "functional", "subclassed"],
        [(True, False), (False, False), (False, True)],
    ),
)
def test_fit_equals_keras_own_layer(model_kind, eagerly, jit):
    ours = training_run(tfbn.BatchNorm(decay=0.8), model_kind, eagerly, jit)
    keras_own = training_run(L.BatchNormalization(momentum=0.8), model_kind, eagerly, jit)
    # Nine steps apart only by the rounding of each.
    for got, want in zip(ours, keras_own, strict=True):
        for array, expected in zip(got, want, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


def test_initializers_regularizers_and_constraints():
    layer = tfbn.BatchNorm(
        beta_initializer=keras.initializers.Constant(0.5),
        gamma_initializer=keras.initializers.Constant(3.0),
        moving_mean_initializer=keras.initializers.Constant(-1.0),
        moving_variance_initializer=keras.initializers.Constant(4.0),
        beta_regularizer=keras.regularizers.L2(0.1),
        gamma_regularizer=keras.regularizers.L1(0.01),
        gamma_constraint=keras.constraints.MaxNorm(2.0),
        beta_constraint="non_neg",
        epsilon=0.0,
    )
    np.testing.assert_allclose(layer(np.ones((1, 2), "float32")), [[3.5, 3.5]], rtol=1e-6)
    assert float(sum(layer.losses)) == pytest.approx(0.1 * 2 * 0.25 + 0.01 * 2 * 3)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(reference.data((8, 2)), np.full((8, 2), -9.0), verbose=0)
    assert (layer.beta.numpy() >= 0).all()
    assert np.linalg.norm(layer.gamma.numpy()) <= 2.0 + 1e-5


ARGUMENTS = {
    "axis": [1, 3],
    "decay": 0.75,
    "epsilon": 0.02,
    "center": True,
    "scale": False,
    "unbiased": True,
    "synchronized": True,
    "beta_initializer": "ones",
    "moving_variance_initializer": keras.initializers.Constant(2.0),
    "beta_regularizer": keras.regularizers.L2(0.3),
    "beta_constraint": "non_neg",
    "name": "named",
}


def test_config_round_trip():
    layer = tfbn.BatchNorm(**ARGUMENTS)
    again = tfbn.BatchNorm.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for name in ("axis", "decay", "epsilon", "center", "scale", "unbiased", "synchronized", "name"):
        assert getattr(again, name) == ARGUMENTS[name]


RELOAD = """
import sys, keras, numpy as np, tfbn
x = np.load(sys.argv[1])
model = keras.models.load_model(sys.argv[2])
np.save(sys.argv[4], model(x))
for weight in model.weights:
    weight.assign(weight * 0)
model.load_weights(sys.argv[3])
np.save(sys.argv[5], model(x))
"""


def test_files_load_in_a_new_process(tmp_path):
    inputs = keras.Input((4, 5, 6))
    layer = tfbn.BatchNorm(**ARGUMENTS)
    model = keras.Model(inputs, L.Dense(2)(layer(inputs)))
    x = reference.data((8, 4, 5, 6))
    model(x, training=True)
    files = [str(tmp_path / name) for name in ("x.npy", "m.keras", "m.weights.h5", "y1.npy", "y2.npy")]
    np.save(files[0], x)
    model.save(files[1])
    model.save_weights(files[2])
    subprocess.run([sys.executable, "-c", RELOAD, *files], check=True, cwd=tmp_path)
    for answer in files[3:]:
        np.testing.assert_allclose(np.load(answer), model(x), rtol=1e-6, atol=1e-6)
