"""tfbn.convert: the same model with another batch norm, and back."""

import inspect
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize, relative_difference
from tfbn.batch_norms import batch_norms, layer_paths

L = keras.layers
STOCK = L.BatchNormalization


def network(kind, **arguments):
    """Nested, shared and frozen batch norms in a Functional model, with random weights."""
    inner = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(4, 3), kind(name="inside")], name="inner")
    inputs = keras.Input((8, 8, 3), name="images")
    x = L.ReLU()(kind(name="first", **arguments)(L.Conv2D(4, 3, name="conv")(inputs)))
    x = L.Flatten()(inner(x))
    frozen = kind(name="frozen", center=False)
    x = frozen(L.Dense(4, name="two")(frozen(L.Dense(4, name="one")(x))))
    frozen.trainable = False
    return randomize(keras.Model(inputs, x))


X = reference.data((16, 8, 8, 3))


@pytest.mark.parametrize(("kind", "to"), [(STOCK, tfbn.BatchNorm), (tfbn.BatchNorm, STOCK)])
def test_the_converted_model_is_the_same_and_shares_nothing(kind, to, unchanged):
    model = network(kind, epsilon=1e-2, gamma_regularizer=keras.regularizers.L2(0.1))
    model.compile("adam", "mse")
    model.fit(X, np.zeros((16, 4)), verbose=0)
    optimizer = [variable.numpy() for variable in model.optimizer.variables]
    with unchanged(model):
        new = tfbn.convert(model, to=to)
        assert {type(layer) for layer in batch_norms(new).values()} == {to}
        assert batch_norms(new).keys() == batch_norms(model).keys()
        assert relative_difference(new(X), model(X)) < 1e-5
        for variable in new.variables:
            variable.assign(variable * 0)
    assert new.get_layer("frozen").trainable is False
    assert float(sum(model.losses)) > 0
    assert not new.compiled
    for before, after in zip(optimizer, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_goes_on_as_before():
    def trained(model):
        model.compile(keras.optimizers.SGD(0.01), "mse")
        history = model.fit(X, np.ones((16, 4)), epochs=5, batch_size=8, shuffle=False, verbose=0)
        return history.history["loss"], model.get_weights()

    model = network(STOCK, momentum=0.8, beta_regularizer="l2")
    ours = tfbn.convert(model)
    for got, want in zip(trained(ours), trained(model), strict=True):
        for array, expected in zip(got, want, strict=True):
            # Ten steps, apart by the rounding of each.
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=4)))
def test_every_combination_of_frozen_models_and_layers_survives(flags):
    """A batch norm left on inside a frozen model, for one: that sets what is inside it, and no more."""
    layers = [L.Dense(4, name="dense", use_bias=False), STOCK(name="bn")]
    base = keras.Sequential([keras.Input((4,)), *layers], name="base")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="top")(base(inputs)))
    for layer, flag in zip((model, base, *layers), flags, strict=True):
        layer.trainable = flag
    wanted = {path: layer.trainable for path, layer in layer_paths(model).items()}
    ours = tfbn.convert(model)
    for new in (ours, tfbn.convert(ours, to=STOCK), tfbn.fold(model)[0], tfbn.fold(ours)[0]):
        assert new.trainable is flags[0]
        found = {path: layer.trainable for path, layer in layer_paths(new).items()}
        kept = wanted.keys() & found.keys()
        assert {path: found[path] for path in kept} == {path: wanted[path] for path in kept}
        assert {"base", "base/dense", "top"} <= kept


def test_there_and_back_is_the_same_model():
    model = network(STOCK, momentum=0.8, beta_initializer="ones", gamma_constraint="non_neg", axis=3)
    back = tfbn.convert(tfbn.convert(model), to=STOCK)
    for path, layer in batch_norms(model).items():
        assert batch_norms(back)[path].get_config() == layer.get_config()
    for array, expected in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert relative_difference(back(X), model(X)) < 1e-6


def test_a_model_converted_back_loads_without_tfbn(tmp_path):
    model = chain((8, 8, 3), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU())
    back = tfbn.convert(model, to=STOCK)
    back.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, keras, numpy as np; model = keras.models.load_model('m.keras');"
        "np.save('y.npy', model(np.load('x.npy'))); assert 'tfbn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert relative_difference(np.load(tmp_path / "y.npy"), back(X)) < 1e-6


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_precision_is_carried_over(policy):
    keras.config.set_dtype_policy(policy)
    model = network(STOCK)
    keras.config.set_dtype_policy("float32")
    new = tfbn.convert(model)
    assert batch_norms(new)["first"].dtype_policy.name == policy
    assert relative_difference(tf.cast(new(X), "float64"), tf.cast(model(X), "float64")) < 1e-2


@pytest.mark.parametrize(
    ("layer", "to", "message"),
    [
        (tfbn.BatchNorm(name="bn", unbiased=True), STOCK, "'bn' has unbiased=True, which Keras'"),
        (tfbn.BatchNorm(name="bn", axis=[1, 2]), STOCK, r"'bn' has axis=\[1, 2\], which Keras'"),
    ],
)
def test_what_the_other_layer_cannot_express(layer, to, message):
    with pytest.raises(ValueError, match=message):
        tfbn.convert(chain((4, 3), layer), to=to)


def test_frozen_flags_of_models_layers_and_weights():
    inner = keras.Sequential([keras.Input((4,)), STOCK(activity_regularizer="l2"), L.Dense(3)])
    model = keras.Sequential([keras.Input((4,)), inner, STOCK()])
    model.layers[1].gamma.trainable = False
    inner.trainable = False
    inner.layers[1].trainable = True
    new = tfbn.convert(model)
    assert (new.trainable, new.layers[0].trainable) == (True, False)
    assert [layer.trainable for layer in new.layers[0].layers] == [False, True]
    assert len(new.trainable_weights) == len(model.trainable_weights) == 3
    assert new.layers[0].layers[0].activity_regularizer is not None
    model.trainable = False
    assert tfbn.convert(model).trainable is False


def test_subclasses_are_left_or_refused():
    class Mine(STOCK):
        pass

    class WithStep(keras.Sequential):
        def train_step(self, data):
            raise NotImplementedError

    with pytest.warns(UserWarning, match="^Left as they are: bn, subclasses of a batch norm that may"):
        converted = tfbn.convert(chain((4,), Mine(name="bn"), STOCK(name="plain")))
    kinds = [type(converted.get_layer(name)) for name in ("bn", "plain")]
    assert kinds == [Mine, tfbn.BatchNorm]
    with pytest.raises(TypeError, match="is a WithStep, whose training may be its own"):
        tfbn.convert(keras.Sequential([keras.Input((4,)), WithStep([keras.Input((4,)), STOCK()])]))


def test_batch_norms_in_opaque_layers_are_named():
    class Block(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.norm = STOCK(name="hidden")

        def call(self, x):
            return self.norm(x)

    with pytest.raises(ValueError, match="^The batch norms block/hidden are inside layers whose graph"):
        tfbn.convert(chain((4,), Block(name="block"), STOCK(name="bn")))


def test_models_that_cannot_be_converted():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model(np.ones((2, 3), "float32"))
    with pytest.raises(TypeError, match=r"\(Subclassed\) cannot be read: it has a call\(\) of its own"):
        tfbn.convert(model)
    with pytest.raises(TypeError, match="^convert needs a keras.Model, received int: 3"):
        tfbn.convert(3)
    with pytest.raises(
        TypeError, match="^to must be tfbn.BatchNorm or keras.layers.BatchNormalization, rec"
    ):
        tfbn.convert(chain((4,), STOCK()), to=L.Dense)
    with pytest.raises(ValueError, match="is not built, so it has no weights to carry over"):
        tfbn.convert(keras.Sequential([L.Dense(2)]))


@pytest.mark.skipif(
    "renorm" in inspect.signature(STOCK).parameters, reason="from Keras 3.14 on it has renorm"
)
def test_renormalisation_that_the_other_layer_does_not_have():
    message = r"^'bn' is a BatchRenorm, and BatchNormalization has no renorm= in Keras 3\.\d+\.\d+\. Con"
    with pytest.raises(ValueError, match=message):
        tfbn.convert(chain((4,), tfbn.BatchRenorm(name="bn")), to=STOCK)


@pytest.mark.skipif(
    "renorm" not in inspect.signature(STOCK).parameters, reason="before Keras 3.14 it has no renorm"
)
def test_a_bound_below_zero_is_no_bound():
    layer = STOCK(renorm=True, renorm_clipping={"rmin": -1.0, "rmax": 1.5})
    new = tfbn.convert(chain((4,), layer))
    (renorm,) = batch_norms(new).values()
    assert (renorm.rmin, renorm.rmax, renorm.dmax) == (None, 1.5, None)


def test_functions_that_keras_cannot_write_down_are_carried_over():
    def ones(shape, dtype=None):
        return tf.ones(shape, dtype)

    class Half(keras.regularizers.Regularizer):
        def __call__(self, x):
            return 0.5 * tf.reduce_sum(x)

        def get_config(self):
            return {}

    layer = STOCK(gamma_initializer=ones, gamma_regularizer=Half(), center=1)
    new = tfbn.convert(chain((4,), layer))
    (converted,) = batch_norms(new).values()
    assert converted.gamma_initializer is ones
    np.testing.assert_allclose(sum(new.losses), 0.5 * converted.gamma.numpy().sum(), rtol=1e-6)
