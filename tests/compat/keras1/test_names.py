"""Keras 1's names for initialisers and regularisers, on compat.BatchNormalization."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfbn.compat import BatchNormalization

N = 4096  # channels: enough to tell the distributions apart; their root is 64
# Of keras/initializations.py (1.2.2) with fan_in = fan_out = sqrt(4096): half the width of a uniform
# distribution, or the standard deviation of a normal one.
UNIFORM = {
    "uniform": 0.05,
    "lecun_uniform": (3 / 64) ** 0.5,
    "glorot_uniform": (6 / 128) ** 0.5,
    "he_uniform": (6 / 64) ** 0.5,
}
NORMAL = {"normal": 0.05, "glorot_normal": (2 / 128) ** 0.5, "he_normal": (2 / 64) ** 0.5}


def built(channels=N, **arguments):
    layer = BatchNormalization(name="bn", **arguments)
    layer.build((None, channels))
    return layer


@pytest.mark.parametrize("argument", ["gamma", "beta"])
@pytest.mark.parametrize("name", [*UNIFORM, *NORMAL])
def test_random_initialisers_are_those_of_keras_1(argument, name):
    values = getattr(built(**{f"{argument}_init": name}), argument).numpy()
    if name in UNIFORM:
        bound = UNIFORM[name]
        # The largest of 4096 is within 1 % of the bound, all but once in 10 ** 17.
        assert bound * 0.99 < np.abs(values).max() <= bound * (1 + 1e-6)
        np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=0.05)
    else:
        np.testing.assert_allclose(values.std(), NORMAL[name], rtol=0.06)  # five standard errors
        assert np.abs(values).max() > 2.5 * NORMAL[name]  # Keras 3's are truncated at 2.3
    assert abs(values.mean()) < 0.1 * values.std()


def test_zero_and_one():
    layer = built(3, gamma_init="zero", beta_init="one")
    np.testing.assert_array_equal(layer.gamma, [0, 0, 0])
    np.testing.assert_array_equal(layer.beta, [1, 1, 1])


def test_functions_are_called_as_keras_1_and_keras_3_do():
    seen = []

    def keras_1(shape, name=None):
        seen.append((shape, name))
        return keras.Variable(np.arange(3.0), name=name)

    def keras_3(shape, dtype=None):
        seen.append((shape, dtype))
        return tf.cast(np.arange(3.0), dtype)

    np.testing.assert_array_equal(built(3, gamma_init=keras_1, beta_init=keras_3).gamma, [0, 1, 2])
    assert seen == [((3,), "bn_gamma"), ((3,), "float32")]
    np.testing.assert_array_equal(built(3, beta_init=lambda shape: np.full(shape, 2.0)).beta, [2, 2, 2])
    np.testing.assert_array_equal(built(3, beta_init=keras.initializers.Ones).beta, [1, 1, 1])
    config = {"class_name": "Constant", "config": {"value": 3.0}}
    np.testing.assert_array_equal(built(3, beta_init=config).beta, [3, 3, 3])


def test_initial_weights_come_first():
    layer = built(2, weights=[[2.0, 3.0], [4.0, 5.0]], gamma_init="uniform")
    np.testing.assert_array_equal(layer.get_weights(), [[2, 3], [4, 5], [0, 0], [1, 1]])
    layer = built(2, weights=[[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]])
    np.testing.assert_array_equal(layer.get_weights(), [[2, 3], [4, 5], [6, 7], [8, 9]])


def test_initial_weights_of_a_layer_that_another_layer_builds():
    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = BatchNormalization(weights=[[2.0, 3.0], [4.0, 5.0]])

        def call(self, inputs):
            return self.inner(inputs)

    around = Around()
    x = keras.Input((2,))
    model = keras.Model(x, around(x))
    np.testing.assert_array_equal(around.inner.get_weights()[:2], [[2, 3], [4, 5]])
    assert model(np.ones((1, 2))).shape == (1, 2)
    traced = Around()
    tf.function(traced)(tf.ones((1, 2)))
    np.testing.assert_array_equal(traced.inner.get_weights()[:2], [[2, 3], [4, 5]])


def test_what_of_the_initialisers_is_saved():
    for given, written in (
        ("he_uniform", "he_uniform"),
        (keras.initializers.Ones, keras.initializers.serialize(keras.initializers.Ones())),
        (lambda shape: np.zeros(shape) + 1, None),
        (np.zeros, None),
    ):
        config = built(3, gamma_init=given).get_config()
        assert config.get("gamma_init") == written
        again = BatchNormalization.from_config(config)
        assert again.get_config().get("gamma_init") == (written or "one")
    again = BatchNormalization.from_config(built(3, beta_init=keras.initializers.Ones()).get_config())
    again.build((None, 2))
    np.testing.assert_array_equal(again.beta, [1, 1])


@pytest.mark.parametrize(
    ("given", "l1", "l2"),
    [
        ({"name": "WeightRegularizer", "l1": 0.5, "l2": 0.25}, 0.5, 0.25),
        ({"name": "L1L2Regularizer", "l1": 0.0, "l2": 0.25}, 0.0, 0.25),
        ({"name": "WeightRegularizer", "l2": 0.25}, 0.0, 0.25),
        ({"name": "l1"}, 0.01, 0.0),
        ("l1", 0.01, 0.0),
        ("l2", 0.0, 0.01),
        ("l1l2", 0.01, 0.01),
        ("WeightRegularizer", 0.0, 0.0),
        (keras.regularizers.L1(0.5), 0.5, 0.0),
        (keras.regularizers.serialize(keras.regularizers.L2(0.5)), 0.0, 0.5),
        (keras.regularizers.L1L2(0.5, 0.25), 0.5, 0.25),
    ],
)
@pytest.mark.parametrize("weight", ["gamma", "beta"])
def test_regularisers(weight, given, l1, l2):
    values = np.array([1.0, -2.0, 4.0])
    weights = [values, values + 1]
    layer = built(3, weights=weights, **{f"{weight}_regularizer": given})
    chosen = weights[weight == "beta"]
    want = l1 * np.abs(chosen).sum() + l2 * (chosen**2).sum()
    np.testing.assert_allclose(sum(layer.losses), want, rtol=1e-6)
    config = layer.get_config()
    assert config[f"{weight}_regularizer"] == {"name": "WeightRegularizer", "l1": l1, "l2": l2}
    assert BatchNormalization.from_config(config).get_config() == config


def test_other_regularisers_of_keras_are_saved_as_keras_does():
    class Squares(keras.regularizers.Regularizer):
        def __call__(self, x):
            return tf.reduce_sum(x**2)

        def get_config(self):
            return {}

    layer = built(3, gamma_regularizer=Squares(), beta_regularizer=Squares())
    assert float(sum(layer.losses)) == 3  # of gamma, which is 1
    with keras.saving.custom_object_scope({"Squares": Squares}):
        config = built(3, gamma_regularizer=Squares()).get_config()
        assert type(BatchNormalization.from_config(config).gamma_regularizer) is Squares


class OfKeras10:
    def set_param(self, p):
        pass

    def __repr__(self):
        return "OfKeras10()"


ALL = "zero, one, uniform, normal, lecun_uniform, glorot_uniform, he_uniform, glorot_normal, he_normal"
REGULARIZERS = "WeightRegularizer, L1L2Regularizer, l1, l2, l1l2, or pass a Keras regulariser."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "zeros",
            "gamma_init='zeros' is no initialiser of Keras 1. Use one of "
            f"{ALL}, or pass a function or a Keras initialiser.",
        ),
        (
            "identity",
            f"gamma_init='identity' makes matrices, and gamma and beta are vectors. Use one of {ALL}.",
        ),
        (
            "orthogonal",
            f"gamma_init='orthogonal' makes matrices, and gamma and beta are vectors. Use one of {ALL}.",
        ),
        (
            1,
            "gamma_init must be the name of an initialiser or a function of a shape, received 1. "
            f"Use one of {ALL}.",
        ),
        (
            lambda shape: np.ones(2),
            "gamma_init made values of shape (2,) for 'bn_gamma', which has shape (3,). "
            "Return a value for each channel.",
        ),
    ],
)
def test_initialisers_that_are_refused(value, message):
    with pytest.raises(TypeError if value == 1 else ValueError) as caught:
        built(3, gamma_init=value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("l3", f"='l3' is no regulariser of a vector in Keras 1. Use one of {REGULARIZERS}"),
        (
            {"name": "EigenvalueRegularizer", "k": 1},
            "={'name': 'EigenvalueRegularizer', 'k': 1} is no regulariser of a vector in Keras 1. "
            f"Use one of {REGULARIZERS}",
        ),
        ({"l1": 1}, f"={{'l1': 1}} is no regulariser of a vector in Keras 1. Use one of {REGULARIZERS}"),
        (
            "activity_l2",
            "='activity_l2' is a regulariser of activities, not of weights. Use "
            "{'name': 'WeightRegularizer', 'l1': …, 'l2': …}, or activity_regularizer=.",
        ),
        (
            OfKeras10(),
            "=OfKeras10() has a set_param(), as the regularisers of early Keras 1, which added "
            "themselves to a loss. Make it a keras.regularizers.Regularizer, that returns one.",
        ),
    ],
)
def test_regularisers_that_are_refused(value, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        BatchNormalization(beta_regularizer=value)
    assert str(caught.value) == f"beta_regularizer{message}"
