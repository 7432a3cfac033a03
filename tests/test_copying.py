"""One layer copied: the user's own functions and objects, precision, adapters and quantized weights."""

import inspect
import itertools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain
from tfbn import compat
from tfbn.cloning import CloneAction, rebuild

L = keras.layers


# Registered nowhere, so that Keras could not read them again.
def tripled(x):
    return 3.0 * x


def no_mask(inputs, mask=None):
    return None


def same_shape(shape):
    return shape


def halves(shape, dtype=None):
    return tf.fill(shape, tf.constant(0.5, dtype))


class Clipped(keras.constraints.Constraint):
    def __call__(self, weights):
        return tf.clip_by_value(weights, -1.0, 1.0)


class Weighty(keras.regularizers.Regularizer):
    """Without a configuration."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, weights):
        return self.factor * tf.reduce_sum(weights)


small, clipped = Weighty(0.1), Clipped()


def scaled(x, activation, is_training):
    with tf.compat.v1.variable_scope("net"):
        x = x @ tf.compat.v1.get_variable("w", [4, 4])
        return activation(compat.batch_norm(x, is_training=is_training))


LAYERS = {
    "lambda": lambda: L.Lambda(tripled, output_shape=same_shape, mask=no_mask, name="own"),
    "lambda with arguments": lambda: L.Lambda(tf.nn.leaky_relu, arguments={"alpha": 0.3}, name="own"),
    "activation": lambda: L.Dense(4, activation=tripled, name="own"),
    "initializer": lambda: L.Dense(4, kernel_initializer=halves, name="own"),
    "regularizer": lambda: L.Dense(
        4, kernel_regularizer=small, bias_regularizer=Weighty(2.0), name="own"
    ),
    "activity": lambda: L.Dense(4, activity_regularizer=small, name="own"),
    "constraint": lambda: L.Dense(4, kernel_constraint=clipped, name="own"),
    "batch norm": lambda: tfbn.BatchNorm(gamma_regularizer=small, beta_constraint=clipped, name="own"),
    "Keras' batch norm": lambda: L.BatchNormalization(gamma_regularizer=small, name="own"),
    "TF1 code": lambda: compat.VariableScopeLayer(scaled, arguments={"activation": tripled}, name="own"),
}


@pytest.mark.filterwarnings("ignore:The batch norms")
@pytest.mark.parametrize("name", LAYERS)
def test_the_users_own_functions_are_copied(name, tmp_path):
    model = chain((4,), LAYERS[name](), L.Dense(3), tfbn.BatchNorm())
    x = reference.data((6, 4))
    folded, report = tfbn.fold(model)
    assert len(report.folded) >= 1
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-6)
    for new in (tfbn.convert(model, to=L.BatchNormalization), tfbn.convert(model)):
        np.testing.assert_allclose(new(x), model(x), rtol=1e-5, atol=1e-6)
        old_layer, new_layer = model.get_layer("own"), new.get_layer("own")
        np.testing.assert_allclose(sum(new_layer.losses), sum(old_layer.losses), rtol=1e-5)
        for attribute, value in vars(old_layer).items():
            if attribute.endswith(("_initializer", "_constraint", "_regularizer")):
                kept = getattr(new_layer, attribute) is value
                assert kept or not isinstance(value, (types.FunctionType, Weighty, Clipped))
    if name != "TF1 code":
        assert tfbn.export(model, tmp_path / "out").relative_difference < 1e-5


def test_a_lambda_keeps_its_mask_and_shape():
    model = chain((4,), L.Lambda(tripled, output_shape=same_shape, mask=no_mask, name="own"))
    layer = tfbn.convert(model).get_layer("own")
    assert layer.function is tripled
    assert layer.mask is no_mask
    assert layer.supports_masking


class Plain(L.Layer):
    """A class of the user's that leaves the dtype out of its configuration."""

    def __init__(self, units):
        super().__init__()
        self.units, self.inner = units, L.Dense(units)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {"units": self.units}


def test_a_copy_has_the_layers_own_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = chain((4,), Plain(3))
    keras.config.set_dtype_policy("float64")
    copy = rebuild(model, lambda layer: CloneAction.COPY)[0]
    assert keras.config.dtype_policy().name == "float64"
    policies = [layer.dtype_policy.name for layer in (copy.layers[1], copy.layers[1].inner)]
    assert policies == ["mixed_float16", "mixed_float16"]
    assert copy.layers[1].inner.kernel.dtype == "float32"
    x = reference.data((6, 4))
    np.testing.assert_array_equal(copy(x), model(x))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", ["dense", "embedding", "einsum", "conv"])
def test_adapted_and_quantized_layers_are_copied_to_the_bit(kind, quantized, adapted):
    if kind == "conv" and quantized:
        pytest.skip("Keras quantizes no convolutions")
    layer = {
        "dense": lambda: L.Dense(4),
        "embedding": lambda: L.Embedding(9, 4),
        "einsum": lambda: L.EinsumDense("abc,cd->abd", (6, 4)),
        "conv": lambda: L.Conv1D(4, 2),
    }[kind]()
    dtype = "int32" if kind == "embedding" else "float32"
    shape = {"dense": (5,), "embedding": (6,), "einsum": (6, 5), "conv": (6, 5)}[kind]
    model = chain(shape, layer, L.Flatten(), L.Dense(3), tfbn.BatchNorm(), dtype=dtype)
    rng = np.random.default_rng(0)
    if quantized:
        layer.quantize("int8")
    if adapted:
        layer.enable_lora(2)
        for weight in layer.trainable_variables:
            weight.assign(rng.normal(size=weight.shape))
    x = rng.integers(0, 9, (7, *shape)) if kind == "embedding" else rng.normal(size=(7, *shape))
    copy = rebuild(model, lambda layer: CloneAction.COPY)[0]
    np.testing.assert_array_equal(copy(x), model(x))
    assert [variable.trainable for variable in copy.layers[1].variables] == [
        variable.trainable for variable in layer.variables
    ]
    folded, _ = tfbn.fold(model)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)


def squared(x):
    return x * x


@keras.saving.register_keras_serializable("tests")
class Named(L.Layer):
    """Has its function under another name in its configuration."""

    def __init__(self, code="squared", **kwargs):
        super().__init__(**kwargs)
        self.function = {"squared": squared}[code]

    def call(self, x):
        return self.function(x)

    def get_config(self):
        return super().get_config() | {"code": "squared"}


class Own(L.Lambda):
    pass


@pytest.mark.parametrize("layer", [Named, lambda: Own(squared)], ids=["named", "lambda"])
def test_functions_that_a_configuration_has_otherwise(layer):
    model = chain((4,), layer(), L.Dense(3), tfbn.BatchNorm())
    x = reference.data((6, 4))
    for new in (tfbn.convert(model), tfbn.fold(model)[0]):
        np.testing.assert_allclose(new(x), model(x), rtol=1e-5, atol=1e-6)


def test_an_adapter_keeps_its_factor():
    if "lora_alpha" not in inspect.signature(L.Dense.enable_lora).parameters:
        pytest.skip("before Keras 3.10 an adapter has no factor")
    model = chain((5,), L.Dense(4), tfbn.BatchNorm())
    layer = model.layers[1]
    layer.enable_lora(2, lora_alpha=8)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    x = reference.data((6, 5))
    np.testing.assert_array_equal(tfbn.convert(model)(x), model(x))


@pytest.mark.parametrize("flags", list(itertools.product([False, True], repeat=3)))
def test_frozen_flags_around_and_inside_time_distributed(flags):
    inner = L.BatchNormalization(name="bn")
    model = chain((5, 3), L.TimeDistributed(inner, name="timed"))
    for layer, flag in zip((model, model.get_layer("timed"), inner), flags, strict=True):
        layer.trainable = flag
    for new in (tfbn.convert(model), tfbn.convert(tfbn.convert(model), to=L.BatchNormalization)):
        timed = new.get_layer("timed")
        assert (new.trainable, timed.trainable, timed.layer.trainable) == flags
