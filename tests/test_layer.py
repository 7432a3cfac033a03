"""tfbn.BatchNorm: against the float64 oracle, and in Keras models against Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from layers import RULES, built

pytestmark = pytest.mark.both
L = keras.layers


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((32, 5), -1), ((8, 6, 5), 1), ((4, 5, 6, 3), -1), ((4, 3, 5, 6), -3), ((4, 5, 6, 3), [1, -1])],
)
def test_training_step(shape, axis, unbiased, scale, center):
    arguments = {"decay": 0.9, "epsilon": 1e-2, "unbiased": unbiased, "center": center, "scale": scale}
    layer, p = built(shape, axis, **arguments)
    x = reference.data(shape, axis, seed=7)
    y, mean, variance = reference.train_step(
        x, p["mean"], p["variance"], 0.9, unbiased, axis, beta=p["beta"], gamma=p["gamma"], epsilon=1e-2
    )
    np.testing.assert_allclose(layer(x, training=True), y, **RULES)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-6)
    assert len(layer.trainable_variables) == center + scale
    assert len(layer.non_trainable_variables) == 2


@pytest.mark.parametrize("training", [False, None])
@pytest.mark.parametrize(("shape", "axis"), [((8, 5), -1), ((4, 3, 5, 6), 1), ((4, 5, 6, 3), (1, 3))])
def test_inference_uses_and_keeps_moving_statistics(shape, axis, training, unchanged):
    layer, p = built(shape, axis)
    x = reference.data(shape, axis, seed=7)
    y = reference.apply(x, p["mean"], p["variance"], p["beta"], p["gamma"], axis=axis)
    with unchanged(layer):
        np.testing.assert_allclose(layer(x, training=training), y, **RULES)


def test_frozen_layer_runs_as_at_inference(unchanged):
    layer, p = built((8, 5))
    layer.trainable = False
    x = reference.data((8, 5), seed=7)
    y = reference.apply(x, p["mean"], p["variance"], p["beta"], p["gamma"])
    with unchanged(layer):
        np.testing.assert_allclose(layer(x, training=True), y, **RULES)
    assert layer.trainable_variables == []


@pytest.mark.parametrize("unbiased", [True, False])
def test_a_single_value_stores_the_biased_variance(unbiased):
    layer = tfbn.BatchNorm(decay=0.5, unbiased=unbiased)
    y = layer(np.full((1, 3), 7, "float32"), training=True)
    np.testing.assert_array_equal(y, np.zeros((1, 3)))
    np.testing.assert_array_equal(layer.moving_mean, [3.5] * 3)
    np.testing.assert_array_equal(layer.moving_variance, [0.5] * 3)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_empty_batch_changes_nothing(compiled, unchanged):
    layer, _ = built((0, 4, 3))
    call = tf.function(layer) if compiled else layer
    with unchanged(layer):
        assert call(np.zeros((0, 4, 3), "float32"), training=True).shape == (0, 4, 3)


def test_nan_reaches_its_own_channel_only():
    layer, p = built((8, 3))
    x = reference.data((8, 3))
    x[2, 1] = np.nan
    y = layer(x, training=True).numpy()
    np.testing.assert_array_equal(np.isnan(y).all(0), [False, True, False])
    np.testing.assert_array_equal(np.isnan(layer.moving_mean), [False, True, False])
    np.testing.assert_allclose(
        y[:, 0],
        reference.train_step(x[:, :1], 0, 1, 0.9, beta=p["beta"][0], gamma=p["gamma"][0])[0][:, 0],
        **RULES,
    )


@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 3), -1), ((6, 5, 3), 1), ((4, 5, 6, 3), -1)])
def test_masked_positions_take_no_part(shape, axis):
    layer, p = built(shape, axis, decay=0.9)
    x = reference.data(shape, axis, seed=7)
    mask = np.random.default_rng(8).random(shape[:2]) < 0.5
    mask[:2] = True
    weights = np.broadcast_to(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), shape) * 1.0
    mean, variance = reference.moments(x, axis, weights)
    y = layer(x, training=True, mask=mask)
    expected = reference.apply(x, mean, variance, p["beta"], p["gamma"], axis=axis)
    np.testing.assert_allclose(y, expected, **RULES)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * p["mean"] + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 * p["variance"] + 0.1 * variance, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [tfbn.BatchNorm, tfbn.BatchRenorm])
def test_what_a_mask_hides_reaches_no_gradient_but_its_own(kind, training, bad):
    x, weights = reference.data((6, 5, 3)), np.random.default_rng(4).normal(size=(6, 5, 3))
    mask = np.random.default_rng(8).random((6, 5)) < 0.6
    weights[~mask] = 0  # as a loss that is masked

    def slopes(hidden):
        layer = kind(epsilon=0.1)
        layer.build(x.shape)
        layer.gamma.assign([2.0, -1.0, 0.5])
        inputs = tf.constant(np.where(mask[..., None], x, hidden), "float32")
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = layer(inputs, training=training, mask=mask)
            loss = tf.reduce_sum(y * weights)
        *slopes, of_inputs = tape.gradient(loss, [*layer.trainable_weights, inputs])
        return [*slopes, of_inputs[mask]], y

    got, y = slopes(bad)
    want, _ = slopes(0.0)
    for array, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(y.numpy()[mask]).all()
    if bad != 3e38:
        assert not np.isfinite(y.numpy()[~mask]).any()


def test_a_batch_that_runs_twice_takes_two_steps_of_the_root_of_its_decay():
    x = tf.constant(reference.data((8, 3)))
    once, twice = tfbn.BatchNorm(decay=0.9), tfbn.BatchNorm(decay=0.9**0.5)
    once(x, training=True)
    twice.build(x.shape)
    again = tf.recompute_grad(lambda x: twice(x, training=True))
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(again(x) ** 2)
    tape.gradient(loss, x)
    np.testing.assert_allclose(twice.moving_mean, once.moving_mean, rtol=1e-6)
    np.testing.assert_allclose(twice.moving_variance, once.moving_variance, rtol=1e-6)


def test_a_mask_of_numbers_is_taken_as_true_and_false():
    x, layers = reference.data((3, 4)), [tfbn.BatchNorm() for _ in range(2)]
    ours = [
        layer(x, training=True, mask=mask)
        for layer, mask in zip(layers, ([1, 0.5, 0], [True, True, False]), strict=True)
    ]
    np.testing.assert_array_equal(*ours)


def test_a_mask_that_leaves_nothing_changes_nothing(unchanged):
    layer, _ = built((4, 5, 3))
    with unchanged(layer):
        layer(reference.data((4, 5, 3)), training=True, mask=np.zeros((4, 5), bool))


def test_an_embedding_mask_reaches_the_layer_and_goes_on():
    layer = tfbn.BatchNorm(decay=0.0)
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), L.Embedding(9, 4, mask_zero=True), layer]
    )
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 0]])
    y = model(tokens, training=True)
    embedded = model.layers[0].get_weights()[0][tokens[tokens > 0]]
    np.testing.assert_allclose(layer.moving_mean, embedded.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(y._keras_mask, tokens > 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_mixed_precision(dtype, training):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    layer, p = built((64, 5), decay=0.9)
    assert {str(v.dtype) for v in layer.weights} == {"float32"}
    x = tf.cast(reference.data((64, 5), seed=7), dtype)
    y = layer(x, training=training)
    assert y.dtype == dtype
    wide = tf.cast(x, tf.float64).numpy()
    expected, mean, variance = reference.train_step(
        wide, p["mean"], p["variance"], 0.9, beta=p["beta"], gamma=p["gamma"]
    )
    if not training:
        expected = reference.apply(wide, p["mean"], p["variance"], p["beta"], p["gamma"])
        mean, variance = p["mean"], p["variance"]
    # Only the output is rounded: to 11 or 8 significant bits.
    np.testing.assert_allclose(tf.cast(y, tf.float64), expected, rtol=2**-7, atol=2**-7)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-6)


def test_integers_are_taken_as_float32():
    inputs = keras.Input((3,), dtype="uint8")
    layer = tfbn.BatchNorm(axis=np.array([1]), decay=0.9)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).integers(0, 256, (50, 3)).astype("uint8")
    y, mean, _ = reference.train_step(x, 0, 1, 0.9)
    np.testing.assert_allclose(model(x, training=True), y, **RULES)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6)
    statistics = tfbn.population_statistics(model, x, verbose=0)[layer.name]
    np.testing.assert_allclose(statistics.mean, reference.moments(x)[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_statistics_are_at_least_float32(dtype):
    layer = tfbn.BatchNorm(dtype=dtype)
    y = layer(tf.cast(reference.data((32, 3)), dtype), training=True)
    assert y.dtype == dtype
    assert layer.moving_mean.dtype == ("float32" if dtype == "float16" else "float64")
    assert layer.gamma.dtype == dtype


def test_float64_is_computed_in_float64():
    layer = tfbn.BatchNorm(dtype="float64", decay=0.9)
    x = reference.data((32, 3), dtype="float64")
    y, mean, _ = reference.train_step(x, 0, 1, 0.9)
    np.testing.assert_allclose(layer(x, training=True), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"renorm": True},
            TypeError,
            r"^BatchNorm has no argument 'renorm' .* layer of its own\. Write tfbn\.BatchRenorm\(\)\.$",
        ),
        (
            {"momentum": 0.9},
            TypeError,
            r"no argument 'momentum' \(received 0.9\): .* BatchNorm\(decay=0.9\)",
        ),
        (
            {"centre": False},
            TypeError,
            r"^BatchNorm has no argument 'centre' \(received False\)\. Write center=, if that is mea",
        ),
        (
            {"trainabl": False},
            TypeError,
            r"no argument 'trainabl' .* Write trainable=, if that is meant\.$",
        ),
        ({"decay": 1.5}, ValueError, r"^decay must be a number between 0 and 1, received 1\.5\.$"),
        (
            {"decay": float("nan")},
            ValueError,
            r"^decay must be a number between 0 and 1, received nan\.$",
        ),
        ({"decay": "0.9"}, TypeError, r"^decay must be a number between 0 and 1, received '0\.9'\.$"),
        ({"epsilon": -1e-3}, ValueError, r"^epsilon must be a number at least 0, received -0\.001\.$"),
        (
            {"epsilon": float("inf")},
            ValueError,
            r"^epsilon must be a number at least 0, received inf\.$",
        ),
        (
            {"axis": 1.0},
            TypeError,
            r"^axis must be an integer or a sequence .*, received 1\.0\. Pass -1",
        ),
        (
            {"axis": []},
            TypeError,
            r"^axis must be an integer or a sequence of integers, received \[\]\.",
        ),
        ({"center": "no"}, TypeError, r"^center must be True or False, received 'no'\.$"),
        ({"unbiased": None}, TypeError, r"^unbiased must be True or False, received None\.$"),
        ({"gamma_initializer": "nonsense"}, ValueError, "nonsense"),
        ({"nonsense": 1}, ValueError, "nonsense"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        tfbn.BatchNorm(**arguments)


@pytest.mark.parametrize(
    ("axis", "shape", "message"),
    [
        (
            3,
            (None, 4, 5),
            r"axis 3 is outside an input of rank 3 \(received axis=3\)\. Choose it between",
        ),
        ([1, -1], (None, 4), r"none twice, received axis=\[1, -1\] for an input of rank 2\. Name each"),
        (
            1,
            (None, None, 5),
            r"size of axis 1 .* inputs of shape \(None, None, 5\)\. Give that axis a fixed",
        ),
        (0, (None, 5), r"size of axis 0 .* received inputs of shape \(None, 5\)"),
    ],
)
def test_wrong_shapes(axis, shape, message):
    with pytest.raises(ValueError, match=message):
        tfbn.BatchNorm(axis=axis)(keras.Input(shape[1:]))


def test_inputs_that_do_not_fit_the_weights_raise_before_any_computation(unchanged):
    layer, _ = built((8, 5))
    with unchanged(layer):
        with pytest.raises(ValueError, match=r"expected axis 1 .* value 5, .* shape \(8, 4\)"):
            layer(np.ones((8, 4), "float32"), training=True)
        with pytest.raises(ValueError, match="expected ndim=2, found ndim=3"):
            layer(np.ones((8, 4, 5), "float32"), training=True)
        with pytest.raises(
            ValueError, match=r"mask\) of shape \(5,\) do not fit values of shape \(8, 5\)"
        ):
            layer(np.ones((8, 5), "float32"), training=True, mask=np.ones(5, bool))


def test_a_class_that_is_inherited_too_may_take_what_is_nearly_an_argument():
    class Scaled(keras.layers.Layer):
        def __init__(self, scales=1, **kwargs):
            super().__init__(**kwargs)
            self.scales = scales

    class Both(tfbn.BatchNorm, Scaled):
        pass

    assert Both(scales=3).scales == 3
    with pytest.raises(TypeError, match=r"^Both has no argument 'centre' .* Write center=, if"):
        Both(scales=3, centre=True)
    with pytest.raises(TypeError, match=r"^BatchRenorm has no argument 'centre' .* Write center="):
        tfbn.BatchRenorm(centre=True)
