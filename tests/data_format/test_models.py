"""Whole channels-first models turned to channels last, against the originals run by XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import FLOAT32, randomize, relative_difference
from tfbn.batch_norms import batch_norms
from turning import FIRST, by_xla, chain, check, conv, samples, sequential

pytestmark = pytest.mark.both
L = keras.layers


def residual():
    """Branches, a nested and a shared model, two inputs, a dictionary of outputs."""
    images, other = keras.Input((3, 8, 7), name="images"), keras.Input((4, 8, 7), name="other")
    inner = keras.Sequential(
        [keras.Input((4, 8, 7)), conv(), tfbn.BatchNorm(axis=1), L.ReLU()], name="inner"
    )
    a, b = keras.Input((4, 8, 7)), keras.Input((4, 8, 7))
    pair = keras.Model([a, b], [L.Add()([conv()(a), b]), L.Multiply()([a, b])], name="pair")
    x = conv(name="stem")(images)
    x = L.Add()([inner(x), inner(other)])
    y, z = pair([x, other])
    z = L.MaxPooling2D(2, **FIRST)(L.ZeroPadding2D(1, **FIRST)(z))
    outputs = {"map": conv(1, 1, name="head")(y), "class": L.Dense(3, name="top")(L.Flatten()(z))}
    return keras.Model([images, other], outputs)


def test_branches_nested_models_and_several_inputs():
    model = residual()
    turned = check(model, permutes=4)  # two inputs, the images put out, and what Flatten reads
    named, wanted = (
        {variable.path: variable for variable in each.variables} for each in (turned, model)
    )
    assert named.keys() == wanted.keys()
    for path, variable in wanted.items():
        np.testing.assert_array_equal(named[path], variable)


def test_a_sequential_model_stays_one(tmp_path):
    model = sequential()
    turned = check(model, permutes=2)
    assert isinstance(turned, keras.Sequential)
    assert [layer.name for layer in turned.layers if type(layer) is not L.Permute] == [
        layer.name for layer in model.layers
    ]
    turned.save(tmp_path / "m.keras")
    x = samples(model)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), turned(x))


def test_training_goes_on_equally():
    """Both by XLA, which is there on every machine: ten steps of the same data."""

    def trained(model):
        model.compile(keras.optimizers.SGD(0.02), "mse", jit_compile=True)
        x, y = samples(model, 16), reference.data((16, 3)).astype("float32")
        history = model.fit(x, y, epochs=5, batch_size=8, shuffle=False, verbose=0)
        return history.history["loss"], model.get_weights()

    model = randomize(sequential())
    turned = tfbn.convert(model, data_format="channels_last")
    start = model.get_weights()
    (losses, weights), (expected, wanted) = trained(turned), trained(model)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert max(np.abs(array - other).max() for array, other in zip(wanted, start, strict=True)) > 1e-2
    for array, expected in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4)  # ten steps, rounded in each


def test_frozen_layers_and_types_are_kept():
    model = residual()
    model.get_layer("inner").layers[0].trainable = False
    model.get_layer("stem").trainable = False
    turned = tfbn.convert(model, data_format="channels_last")
    paths = {variable.path for variable in model.trainable_variables}
    assert {variable.path for variable in turned.trainable_variables} == paths
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((3, 6, 5), dtype="float64")
    half = keras.Model(inputs, conv(dtype="float64")(inputs))
    keras.config.set_dtype_policy("float32")
    turned = tfbn.convert(randomize(half), data_format="channels_last")
    x = reference.data((2, 3, 6, 5))
    assert relative_difference(turned(x), by_xla(half, x)) < 1e-12  # a Permute of float16 would show


def test_it_folds_exports_and_serves(tmp_path):
    """A bias along the axis that Keras takes for the channels' is no obstacle any more."""
    layers = [conv(6), tfbn.BatchNorm(axis=1), L.ReLU(), L.MaxPooling2D(2, **FIRST), conv(3)]
    layers += [tfbn.BatchNorm(axis=1), L.Flatten(), tfbn.BatchNorm(), L.Dense(2)]
    model = keras.Sequential([keras.Input((3, 6, 6), name="images"), *layers])
    for layer in batch_norms(model).values():
        layer.moving_mean.assign(layer.moving_mean + 0.5)
    assert "Keras would add a bias along that one" in str(tfbn.fold(model)[1])
    turned = tfbn.convert(model, data_format="channels_last")
    folded, report = tfbn.fold(turned)
    assert (len(report.folded), len(report.kept)) == (3, 0), str(report)
    x = samples(model)
    assert relative_difference(folded(x), by_xla(model, x)) < FLOAT32
    told = tfbn.export(turned, tmp_path / "served")
    assert told.inputs == {"images": ((None, 3, 6, 6), "float32")}
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert relative_difference(served(images=x)["output_0"], by_xla(model, x)) < FLOAT32


def test_batch_norms_are_replaced_only_if_asked():
    model = sequential()
    turned = tfbn.convert(model, data_format="channels_last")
    kinds = [type(layer) for layer in batch_norms(model).values()]
    assert [type(layer) for layer in batch_norms(turned).values()] == kinds
    both = tfbn.convert(model, to=tfbn.BatchNorm, data_format="channels_last")
    assert {type(layer) for layer in batch_norms(both).values()} == {tfbn.BatchNorm}
    assert {layer.axis for layer in batch_norms(both).values()} == {-1}


def test_a_model_that_is_channels_last_is_only_copied():
    model = chain((6, 5, 3), L.Conv2D(4, 3), tfbn.BatchNorm(), L.Flatten(), L.Dense(2))
    turned = check(model, permutes=0)
    assert [layer.get_config() for layer in turned.layers] == [
        layer.get_config() for layer in model.layers
    ]


def test_activity_regularizers_stay_where_they_were():
    layers = [
        conv(activation="softmax", activity_regularizer="l2"),
        L.Reshape((2, 2, 9, 7)),
        L.TimeDistributed(conv(), activity_regularizer="l1"),
        L.Permute((1, 3, 4, 2), activity_regularizer="l2"),
        tfbn.BatchNorm(activity_regularizer="l1"),
    ]
    model = chain((3, 9, 7), *layers)
    turned = check(model)
    x = samples(model)
    losses = []
    for network in (model, turned):
        losses.append(
            tf.function(
                lambda x, network=network: (network(x), sum(network.losses))[1], jit_compile=True
            )(x)
        )
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0] > 1


def test_one_variable_frozen_alone_and_constraints_along_an_axis():
    model = sequential()
    model.get_layer("conv").kernel.trainable = False
    turned = tfbn.convert(model, data_format="channels_last")
    assert len(turned.trainable_weights) == len(model.trainable_weights)
    assert turned.get_layer("conv").kernel.trainable is False
    check(chain((3, 5, 6), conv(), L.PReLU(alpha_constraint=keras.constraints.MaxNorm(0.3, axis=0))))
