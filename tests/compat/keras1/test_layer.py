"""compat.BatchNormalization: against Keras 1's rules in float64 NumPy, and files of Keras 1.2.2."""

import json

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import paths
import reference
import tfbn
from sweeps import thinned
from tfbn.compat import BatchNormalization

L = keras.layers
DATA = paths.DATA / "keras1"
SHAPES = [((8, 5), -1), ((7, 6, 3), 1), ((4, 6, 3), 2), ((3, 4, 5, 6), 1), ((3, 5, 6, 4), 3)]
SHAPES += [((2, 3, 4, 5, 6), -2)]
CASES = [(mode, *shape) for mode in (0, 2) for shape in SHAPES]
CASES += [(1, shape, -1) for shape, _ in SHAPES] + [(1, (4, 5, 5), 1), (1, (3, 1, 4), 1)]
ARGUMENTS = {"epsilon": 0.02, "momentum": 0.8}


class Keras1:
    """The layer of Keras 1 in float64, from its text: state, and a call in each learning phase."""

    def __init__(self, weights, mode, axis, epsilon, momentum):
        self.gamma, self.beta, self.mean, self.variance = (np.asarray(w, float) for w in weights)
        self.mode, self.axis, self.epsilon, self.momentum = mode, axis, epsilon, momentum

    def __call__(self, x, training):
        x = np.asarray(x, np.float64)
        if self.mode == 1:
            deviation = np.sqrt(x.var(-1, keepdims=True) + self.epsilon)
            normed = (x - x.mean(-1, keepdims=True)) / (deviation + self.epsilon)
            return self.gamma * normed + self.beta
        mean, variance = self.mean, self.variance
        if training or self.mode == 2:
            mean, variance = reference.moments(x, self.axis)
        if training and self.mode == 0:
            self.mean = self.momentum * self.mean + (1 - self.momentum) * mean
            self.variance = self.momentum * self.variance + (1 - self.momentum) * variance
        return reference.apply(x, mean, variance, self.beta, self.gamma, self.epsilon, self.axis)


def starting_weights(size):
    p = reference.parameters((size,))
    return [p[name] for name in ("gamma", "beta", "mean", "variance")]


@pytest.mark.parametrize(
    ("how", "mode", "shape", "axis"), thinned(3, ["eager", "function", "xla"], CASES)
)
def test_training_equals_keras_1_step_by_step(mode, shape, axis, how):
    weights = starting_weights(shape[axis])
    layer = BatchNormalization(mode=mode, axis=axis, weights=weights, **ARGUMENTS)
    layer.build((None, *shape[1:]))
    oracle = Keras1(weights, mode, axis, **ARGUMENTS)
    call = layer
    if how != "eager":
        unknown = tf.TensorSpec([None, *shape[1:]])
        call = tf.function(layer, jit_compile=how == "xla")
        call.get_concrete_function(unknown, training=True)
    for step in range(4):
        x = reference.data((shape[0] + step, *shape[1:]), axis, seed=step)
        for training in (True, False):
            # float32 arithmetic on values of size 10, and a scale of up to 2 / sqrt(0.02).
            want = oracle(x, training)
            np.testing.assert_allclose(call(x, training=training), want, rtol=1e-5, atol=5e-5)
        np.testing.assert_allclose(layer.running_mean, oracle.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(layer.running_std, oracle.variance, rtol=2e-6)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_weights_are_those_of_keras_1(mode):
    layer = BatchNormalization(mode=mode)
    layer.build((None, 3))
    names = ["gamma", "beta", "running_mean", "running_std"]
    assert [weight.name for weight in layer.weights] == names
    assert [weight.name for weight in layer.trainable_weights] == names[:2]
    np.testing.assert_array_equal(layer.get_weights(), [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3])


@pytest.mark.parametrize("name", ["dense_mode0", "dense_mode1", "dense_mode2", "conv_th_axis1_mode0"])
def test_models_of_keras_1_predict_the_same(name):
    configs = json.loads((DATA / f"{name}.json").read_text())["config"]
    arrays = np.load(DATA / f"{name}_ref.npz")
    layers, weights = [keras.Input(arrays["x"].shape[1:])], []
    with h5py.File(DATA / f"{name}_weights.h5") as file:
        for described in configs:
            config = described["config"]
            group = file[config["name"]]
            own = [group[key][()] for key in group.attrs["weight_names"]]
            if described["class_name"] == "Dense":
                layers.append(L.Dense(config["output_dim"]))
            elif described["class_name"] == "Convolution2D":
                # Theano's convolution turns the kernel by half, and a CPU has channels last only.
                own[0] = own[0][:, :, ::-1, ::-1].transpose(2, 3, 1, 0)
                layers += [L.Permute((2, 3, 1)), L.Conv2D(4, 3), L.Permute((3, 1, 2))]
            elif described["class_name"] == "BatchNormalization":
                layers.append(BatchNormalization.from_config(config))
            else:
                layers.append(getattr(L, described["class_name"]).from_config(config))
            weights += own
    model = keras.Sequential(layers)
    model.set_weights(weights)
    np.testing.assert_allclose(model(arrays["x"]), arrays["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_fit_as_the_first_layer_of_a_sequential_model(mode, jit_compile):
    x = reference.data((20, 4))
    model = keras.Sequential()
    model.add(BatchNormalization(mode=mode, input_shape=(4,), momentum=0.5))
    model.add(L.Dense(3))
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    model.fit(x, np.zeros((20, 3)), batch_size=8, shuffle=False, verbose=0)
    oracle = Keras1([*model.layers[0].get_weights()[:2], 0.0, 1.0], mode, -1, 1e-5, 0.5)
    for rows in (x[:8], x[8:16], x[16:]):
        oracle(rows, training=True)
    np.testing.assert_allclose(model.layers[0].running_mean, oracle.mean + np.zeros(4), rtol=1e-5)
    np.testing.assert_allclose(model.layers[0].running_std, oracle.variance + np.zeros(4), rtol=1e-5)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_gradients_equal_finite_differences(mode):
    layer = BatchNormalization(mode=mode, weights=starting_weights(3), dtype="float64", epsilon=0.1)
    layer.build((None, 4, 3))
    x = tf.constant(reference.data((5, 4, 3), dtype="float64"))
    beta, gamma = layer.beta.value, layer.gamma.value

    def loss(x, gamma_, beta_):
        gamma.assign(gamma_)
        beta.assign(beta_)
        return tf.reduce_sum(tf.sin(layer(x, training=True)))

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(tf.sin(layer(x, training=True)))
    got = tape.gradient(value, [x, gamma, beta])
    point = [x.numpy(), gamma.numpy(), beta.numpy()]
    for number, slope in enumerate(got):
        for index in list(np.ndindex(*slope.shape))[:6]:
            ends = []
            for step in (1e-5, -1e-5):
                moved = [array.copy() for array in point]
                moved[number][index] += step
                ends.append(float(loss(*map(tf.constant, moved))))
            loss(*map(tf.constant, point))
            difference = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(slope[index], difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2), ("float64", 1e-12)]
)
def test_precision(mode, dtype, rtol):
    # Half a unit in the last place of the type, of outputs of size 4.
    weights = starting_weights(3)
    layer = BatchNormalization(mode=mode, weights=weights, dtype=dtype, epsilon=0.1)
    x = reference.data((16, 3), dtype="float64")
    x = tf.cast(tf.cast(x, layer.compute_dtype), "float64").numpy()
    want = Keras1(weights, mode, -1, 0.1, 0.99)(x, training=True)
    got = layer(tf.cast(x, layer.compute_dtype), training=True)
    assert got.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(got, "float64"), want, rtol=rtol, atol=4 * rtol)


def test_a_frozen_layer_runs_as_at_inference(unchanged):
    layer = BatchNormalization(weights=starting_weights(3), trainable=False)
    x = reference.data((16, 3))
    want = Keras1(starting_weights(3), 0, -1, 1e-5, 0.99)(x, training=False)
    layer.build((None, 3))
    with unchanged(layer):
        np.testing.assert_allclose(layer(x, training=True), want, rtol=1e-5, atol=1e-5)
    assert layer.trainable_weights == []


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (ValueError, {"mode": 3}, "statistics always), received 3."),
        (ValueError, {"mode": True}, "statistics always), received True."),
        (
            TypeError,
            {"axis": [1, 2]},
            r"axis must be an integer, received [1, 2]. Pass -1 for channels last,"
            " 1 for channels first; tfbn.BatchNorm takes several axes.",
        ),
        (ValueError, {"epsilon": -1}, "epsilon must be a number at least 0, received -1."),
        (ValueError, {"momentum": 2}, "momentum must be a number between 0 and 1, received 2."),
        (
            ValueError,
            {"weights": [[1.0]]},
            "weights must be a list [gamma, beta] or [gamma, beta, "
            "running_mean, running_std], received [[1.0]].",
        ),
    ],
)
def test_wrong_arguments(error, arguments, message):
    with pytest.raises(error) as caught:
        BatchNormalization(**arguments)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        (
            {"mode": 1},
            (None,),
            "'bn' normalises each sample along its last axis (mode 1) and needs at least "
            "two axes, received inputs of shape (None,). Pass (samples, features).",
        ),
        (
            {"mode": 1, "axis": 1},
            (None, 3, 4),
            "'bn' normalises each sample along its last axis (mode 1), "
            "and axis=1 gives gamma and beta 3 numbers, which do not fit it: received inputs of shape "
            "(None, 3, 4). Use axis=-1.",
        ),
        (
            {"axis": 2},
            (None, 3),
            "axis 2 is outside an input of rank 2 (received axis=2). Choose it between -2 and 1.",
        ),
        (
            {},
            (8, None),
            "'bn' needs to know the size of axis -1 to create its weights, received inputs of "
            "shape (8, None). Give that axis a fixed size in keras.Input, or choose another axis.",
        ),
        (
            {"weights": [np.ones(3), np.ones(2)]},
            (None, 3),
            "weights gives 'bn' a beta of shape (2,), and "
            "its inputs of shape (None, 3) have 3 features along axis -1. Pass arrays of shape (3,).",
        ),
    ],
)
def test_wrong_shapes(arguments, shape, message):
    layer = BatchNormalization(name="bn", **arguments)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layer.build(shape)
    assert str(caught.value) == message
    assert not layer.built
    assert layer.weights == []


def test_there_is_nothing_to_measure_in_modes_1_and_2():
    model = keras.Sequential([keras.Input((3,)), BatchNormalization(mode=1, name="bn")])
    reason = r"of bn \(mode 1 normalises each sample by itself, at inference too\) none needs statist"
    with pytest.raises(ValueError, match=f"has no batch norm to measure: {reason}"):
        tfbn.recalibrate(model, np.zeros((4, 3)))
