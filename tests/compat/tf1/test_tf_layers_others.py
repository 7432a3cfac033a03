"""The other layers of `tf.layers` against the originals, which live on in tf_keras."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
from networks import relative_difference
from tfbn import compat, fold
from tfbn.compat import tf1

v1 = tf.compat.v1
L2 = staticmethod(lambda weights: 0.1 * tf.reduce_sum(tf.square(weights)))
SHAPES = {1: (3, 9, 4), 2: (3, 9, 8, 4), 3: (2, 6, 5, 4, 2)}
# Name of the function, shape of the inputs, arguments behind them.
CASES = [
    ("dense", (5, 4), (3,), {}),
    ("dense", (5, 2, 3, 4), (3, tf.nn.relu), {"use_bias": False}),
    ("dense", (5, 4), (3,), {"name": "fc", "kernel_regularizer": L2, "bias_regularizer": L2}),
    (
        "dense",
        (5, 4),
        (3,),
        {"kernel_initializer": v1.random_normal_initializer(seed=1), "trainable": False},
    ),
    ("conv1d", SHAPES[1], (5, 3), {"strides": 2, "padding": "same"}),
    ("conv1d", SHAPES[1], (5, 3), {"dilation_rate": 2}),
    ("conv2d", SHAPES[2], (5, (3, 2), (2, 1), "same"), {"activation": tf.nn.tanh}),
    ("conv2d", SHAPES[2], (5, 3), {"dilation_rate": (2, 2), "use_bias": False}),
    ("conv2d", SHAPES[2], (5, 3), {"name": "block/conv", "activity_regularizer": L2}),
    ("conv2d", SHAPES[2], [5], {"kernel_size": [3, 3], "kernel_constraint": keras.constraints.NonNeg()}),
    ("conv3d", SHAPES[3], (3, 2, 1, "SAME"), {}),
    ("conv2d_transpose", SHAPES[2], (5, 3, 2, "same"), {}),
    ("conv2d_transpose", SHAPES[2], (5, (4, 3), (3, 2), "valid"), {"use_bias": False}),
    ("conv2d_transpose", SHAPES[2], (5, 2, 3), {}),
    ("conv3d_transpose", SHAPES[3], (3, 3, 2), {}),
    ("separable_conv2d", SHAPES[2], (5, 3), {"padding": "same", "depth_multiplier": 2}),
    (
        "separable_conv2d",
        SHAPES[2],
        (5, 3, 2),
        {"depthwise_regularizer": L2, "pointwise_regularizer": L2},
    ),
    ("max_pooling1d", SHAPES[1], (2, 2), {}),
    ("max_pooling2d", SHAPES[2], ((3, 2), (2, 1), "same"), {}),
    ("max_pooling3d", SHAPES[3], (2, 2), {}),
    ("average_pooling1d", SHAPES[1], (2, 1), {"padding": "same"}),
    ("average_pooling2d", SHAPES[2], (2, 2), {}),
    ("average_pooling3d", SHAPES[3], (2, 1, "same"), {}),
    ("flatten", SHAPES[2], (), {}),
    ("flatten", SHAPES[2], (None, "channels_first"), {}),
    ("flatten", (5, 1), (), {}),
]


def original(name):
    parts = (
        importlib.import_module(f"tf_keras.src.legacy_tf_layers.{p}")
        for p in ("convolutional", "core", "pooling")
    )
    return next(getattr(part, name) for part in parts if hasattr(part, name))


def outcome(function, shape, arguments, named, free):
    """What a program sees of two calls: outputs, variables, losses, with weights by name."""
    with tf.Graph().as_default(), v1.Session() as session:
        size = (None, *(None if free else size for size in shape[1:-1]), shape[-1])
        x = v1.placeholder("float32", size)
        outputs = [function(x, *arguments, **named)]
        if "name" not in named:
            outputs.append(function(x, *arguments, **named))
        losses = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
        for variable in v1.global_variables():
            seed = len(variable.op.name)
            variable.load(reference.data(variable.shape.as_list() or [1], seed=seed) / 3, session)
        fed = {x: reference.data(shape)}
        return {
            "variables": [
                (each.op.name, each.shape.as_list(), each.dtype.base_dtype)
                for each in v1.global_variables()
            ],
            "trainable": [each.op.name for each in v1.trainable_variables()],
            "shapes": [output.shape.as_list() for output in outputs],
            "outputs": session.run(outputs, fed),
            "losses": session.run([tf.convert_to_tensor(loss) for loss in losses], fed),
        }


@pytest.mark.filterwarnings("ignore:.tf.layers:UserWarning")
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_names_numbers_and_losses_are_the_original_s(case, free):
    name, shape, arguments, named = case
    ours = outcome(getattr(tf1.layers, name), shape, arguments, named, free)
    theirs = outcome(original(name), shape, arguments, named, free)
    for key in ("variables", "trainable"):
        assert ours[key] == theirs[key]
    if not free:  # with free sizes the original knows less of some
        assert ours["shapes"] == theirs["shapes"]
    for key in ("outputs", "losses"):
        for one, other in zip(ours[key], theirs[key], strict=True):
            assert np.shape(one) == np.shape(other)
            assert relative_difference(np.asarray(one), np.asarray(other)) < 1e-6


@pytest.mark.parametrize("name", ["Dense", "Conv2D"])
def test_a_class_called_twice_has_one_set_of_variables(name):
    arguments = {"Dense": (3,), "Conv2D": (3, 2)}[name]
    with tf.Graph().as_default():
        layer = getattr(tf1.layers, name)(*arguments, name="twice")
        x = v1.placeholder("float32", (None, 4, 4, 2))
        one, other = layer(x), layer.apply(x)
        assert [each.op.name for each in v1.global_variables()] == ["twice/kernel", "twice/bias"]
        assert layer.weights == layer.trainable_variables == [layer.kernel, layer.bias]
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            np.testing.assert_array_equal(*session.run([one, other], {x: reference.data((2, 4, 4, 2))}))
        getattr(tf1.layers, name)(*arguments)(x)
        assert v1.global_variables()[-1].op.name == f"{name.lower()}/bias"


def test_reuse_takes_the_variables_that_are_there():
    with tf.Graph().as_default():
        x = v1.placeholder("float32", (None, 4))
        tf1.layers.dense(x, 3, name="fc")
        tf1.layers.dense(x, 3, name="fc", reuse=True)
        tf1.layers.dense(x, 3)
        tf1.layers.dense(x, 3, reuse=True)
        assert [each.op.name for each in v1.global_variables()] == [
            *("fc/kernel", "fc/bias", "dense/kernel", "dense/bias")
        ]
        with pytest.raises(ValueError, match="fc/kernel already exists"):
            tf1.layers.dense(x, 3, name="fc")


@pytest.mark.parametrize("training", [False, True, "tensor"])
def test_dropout(training):
    with tf.Graph().as_default(), v1.Session() as session:
        flag = v1.placeholder_with_default(True, ()) if training == "tensor" else training
        y = tf1.layers.dropout(tf.ones((50, 40)), 0.25, seed=3, training=flag)
        got = session.run(y)
        assert set(np.unique(got)) == ({0, np.float32(4 / 3)} if training else {1})
        if training == "tensor":
            assert set(np.unique(session.run(y, {flag: False}))) == {1}
        if training:
            assert 0.2 < np.mean(got == 0) < 0.3


def network(x, is_training=False):
    """As old code writes it."""
    x = tf1.layers.conv2d(x, 6, 3, padding="same", use_bias=False, name="c1", activation=None)
    x = tf1.layers.batch_normalization(x, training=is_training, name="n1")
    x = tf1.layers.max_pooling2d(x, 2, 2)
    x = tf1.layers.conv2d_transpose(x, 4, 3, 2, kernel_initializer=v1.glorot_uniform_initializer())
    x = tf1.layers.separable_conv2d(x, 5, 3, activation=tf.nn.relu)
    x = tf1.layers.dropout(tf1.layers.flatten(x), 0.5, training=is_training)
    return tf1.layers.dense(x, 3, tf.nn.tanh, name="out")


def test_on_keras_tensors_they_are_keras_layers_which_fold():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, network(inputs, is_training=None))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        *("InputLayer", "Conv2D", "BatchNorm", "MaxPooling2D", "Conv2DTranspose"),
        *("SeparableConv2D", "Flatten", "Dropout", "Dense"),
    ]
    assert [layer.name for layer in model.layers if layer.name in ("c1", "n1", "out")] == [
        "c1",
        "n1",
        "out",
    ]
    assert keras.models.model_from_json(model.to_json()).count_params() == model.count_params()
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(np.abs(reference.data(weight.shape)) / 5 if weight.shape else weight)
    x = reference.data((4, 8, 8, 3))
    folded, report = fold(model)
    assert len(report.folded) == 1
    assert relative_difference(folded.predict(x, verbose=0), model.predict(x, verbose=0)) < 1e-5
    with pytest.raises(ValueError, match="has no reuse"):
        tf1.layers.dense(inputs, 3, reuse=True)


def test_in_a_layer_they_compute_what_they_do_in_a_graph():
    x = reference.data((4, 8, 8, 3))
    layer = compat.VariableScopeLayer(network)
    layer(x)
    weights = {}
    for name, weight in layer.variables_by_name.items():
        weights[name] = np.abs(reference.data(weight.shape, seed=len(name))) / 5
        weight.assign(weights[name])
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder("float32", (None, 8, 8, 3))
        y = network(given)
        names = [each.op.name for each in v1.global_variables()]
        assert names == list(weights)
        for variable in v1.global_variables():
            variable.load(weights[variable.op.name], session)
        want = session.run(y, {given: x})
    assert relative_difference(layer(x).numpy(), want) < 1e-6


def test_eager_tensors_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"compat\.dense was called eagerly.*VariableScopeLayer"):
        tf1.layers.dense(tf.ones((2, 3)), 4)


def test_every_function_and_class_says_its_arguments():
    with pytest.raises(TypeError, match="kernel"):
        tf1.layers.conv2d(keras.Input((4, 4, 3)), 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'unit'"):
        tf1.layers.Dense(3, unit=3)
    for name in tf1.layers.__all__:
        assert getattr(tf1.layers, name).__doc__, name
