"""tfbn.fold looks inside custom layers and subclassed models, and shares what it cannot copy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import FLOAT32, outputs, randomize, relative_difference
from tfbn.batch_norms import batch_norms, layer_paths
from tfbn.opening import opened

L = keras.layers
IMAGE = (8, 8, 4)


class ConvBNReLU(L.Layer):
    def __init__(self, filters=4, names=("conv", "bn"), **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(filters, 3, padding="same", name=names[0])
        self.bn = tfbn.BatchNorm(name=names[1])

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build(self.conv.compute_output_shape(shape))

    def call(self, inputs, training=None):
        return keras.ops.relu(self.bn(self.conv(inputs), training=training))


class Block(L.Layer):
    """Layers in a list and in a dictionary, and another custom layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convs = [ConvBNReLU(name=f"conv{number}") for number in range(2)]
        self.others = {"bn": L.BatchNormalization(name="last")}

    def build(self, shape):
        for layer in self.convs:
            layer.build(shape)
        self.others["bn"].build(shape)

    def call(self, inputs, training=None):
        x = inputs
        for layer in self.convs:
            x = layer(x, training=training)
        return self.others["bn"](L.Conv2D.__call__(self.convs[0].conv, x), training=training) + inputs


class ResNet(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = ConvBNReLU(name="stem")
        self.blocks = [ConvBNReLU(name=f"block{number}") for number in range(3)]
        self.head = L.Dense(2, name="head")

    def call(self, inputs, training=None):
        x = self.stem(inputs, training=training)
        for block in self.blocks:
            x = block(x, training=training) + x
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def resnet():
    model = ResNet(name="resnet")
    model(np.zeros((1, *IMAGE), "float32"))
    return model


def in_functional():
    inputs = keras.Input(IMAGE)
    x = ConvBNReLU(name="a")(inputs)
    inner = keras.Sequential([keras.Input(IMAGE), ConvBNReLU(name="b")], name="inner")
    return keras.Model(inputs, L.Dense(3)(inner(inner(x))))


def in_sequential():
    return keras.Sequential([keras.Input(IMAGE), ConvBNReLU(name="a"), ConvBNReLU(6, name="b")])


def one_name_twice():
    return keras.Sequential([keras.Input(IMAGE), ConvBNReLU(names=("same", "same"), name="a")])


def called_on_two_sizes():
    shared = ConvBNReLU(name="shared")
    large, small = keras.Input(IMAGE), keras.Input((4, 4, 4))
    return keras.Model([large, small], [shared(large), shared(small)])


class Two(L.Layer):
    """Several inputs, by position and by name, and several outputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = L.Dense(3, name="left"), L.Dense(3, name="right")
        self.bn = tfbn.BatchNorm(name="bn")

    def call(self, pair, scaled=None, factor=1.0):
        left = self.left(pair[0])
        return {"sum": self.bn(left + self.right(pair[1])), "scaled": scaled * factor}


def several_inputs():
    a, b, c = (keras.Input((size,)) for size in (2, 4, 3))
    made = Two(name="two")([a, b], scaled=c, factor=2.0)
    return keras.Model([a, b, c], [made["sum"], made["scaled"]])


FOLDED = {
    "subclassed model": (resnet, 4),
    "functional": (in_functional, 2),
    "sequential": (in_sequential, 2),
    "one name twice": (one_name_twice, 1),
    "called on two sizes": (called_on_two_sizes, 1),
    "several inputs": (several_inputs, 1),
}


def samples(model):
    shapes = [tensor.shape[1:] for tensor in model.inputs] if hasattr(model, "inputs") else [IMAGE]
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(3, *shape)).astype("float32") for shape in shapes]
    return arrays if len(arrays) > 1 else arrays[0]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", FOLDED)
def test_batch_norms_inside_layers_fold(name, policy, unchanged):
    keras.config.set_dtype_policy(policy)
    make, count = FOLDED[name]
    model = randomize(make())
    names = [layer.name for layer in layer_paths(model).values()]
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert [layer.name for layer in layer_paths(model).values()] == names
    assert len(report.folded) == count, str(report)
    assert [entry.path for entry in report.entries] == list(batch_norms(model))
    assert not batch_norms(folded)
    assert not report.shared
    assert {path for entry in report.folded for path in entry.into} <= layer_paths(model).keys()
    x = samples(model)
    tolerance = FLOAT32 if policy == "float32" else 1e-2
    for got, want in zip(outputs(folded, x), outputs(model, x), strict=True):
        assert relative_difference(got, want) < tolerance
    mine = {id(variable) for variable in model.variables}
    assert not any(id(variable) in mine for variable in folded.variables)


def test_the_inside_of_layers_inside_layers():
    inputs = keras.Input(IMAGE)
    model = randomize(keras.Model(inputs, Block(name="block")(inputs)))
    with opened(model) as (shown, closed):
        x = reference.data((3, *IMAGE))
        np.testing.assert_array_equal(shown(x, training=False), model(x, training=False))
        assert not closed
        assert list(batch_norms(shown)) == list(batch_norms(model))
    folded, report = tfbn.fold(model)
    # The last convolution is the first one's again, so that both batch norms behind it would want it.
    assert [entry.path for entry in report.folded] == ["block/conv1/bn"]
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_an_opened_model_takes_other_sizes_and_can_be_saved(tmp_path):
    model = randomize(resnet())
    folded, _ = tfbn.fold(model)
    folded.save(tmp_path / "folded.keras")
    loaded = keras.models.load_model(tmp_path / "folded.keras")
    for size in (8, 11):
        x = reference.data((2, size, size, 4))
        assert relative_difference(loaded(x), model(x, training=False)) < FLOAT32


def test_an_opened_model_is_exported(tmp_path):
    model = randomize(resnet())
    with pytest.warns(UserWarning, match="far from their moving statistics"):
        report = tfbn.export(model, tmp_path / "m", samples=reference.data((4, *IMAGE)))
    assert len(report.fold.folded) == 4
    assert report.difference < 1e-4


def test_models_without_opaque_batch_norms_are_read_as_they_are():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), tfbn.BatchNorm()])
    with opened(model) as (shown, closed):
        assert shown is model
        assert not closed


class OwnWeights(ConvBNReLU):
    def build(self, shape):
        super().build(shape)
        self.factor = self.add_weight(shape=(), name="factor")

    def call(self, inputs, training=None):
        return super().call(inputs, training) * self.factor


class NeedsValues(ConvBNReLU):
    def call(self, inputs, training=None):
        return super().call(inputs * tf.reduce_sum(inputs), training)  # TensorFlow's own function


class Counting(ConvBNReLU):
    def build(self, shape):
        super().build(shape)
        self.counter = L.Layer(name="counter")
        self.counter.count = self.counter.add_weight(shape=(), initializer="zeros", name="count")

    def call(self, inputs, training=None):
        self.counter.count.assign_add(1.0)
        return super().call(inputs, training)


class DependsOnTheRun(ConvBNReLU):
    def call(self, inputs, training=None):
        return super().call(inputs, training) + isinstance(inputs, keras.KerasTensor)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OwnWeights, "which has weights of its own; put them in a layer of their own"),
        (NeedsValues, "which does not run on symbolic tensors; call Keras layers"),
        (Counting, "which changes variables at inference"),
        (DependsOnTheRun, "which computes something else on symbolic tensors"),
    ],
)
def test_what_cannot_be_opened_stays_whole_and_says_why(kind, reason, unchanged):
    model = keras.Sequential([keras.Input(IMAGE), ConvBNReLU(name="open"), kind(name="closed")])
    randomize(model)
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["open/bn"]
    (kept,) = report.kept
    assert kept.path == "closed/bn"
    assert kept.reason.startswith(f"it is inside 'closed' ({kind.__name__}), {reason}")
    x = reference.data((3, *IMAGE))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_a_layer_that_random_inputs_do_not_fit_stays_whole():
    class Deep(ConvBNReLU):
        def call(self, inputs, training=None):
            if inputs.shape[1] not in (None, 8):
                raise ValueError("no such\nsize")
            return super().call(inputs, training)

    inputs = keras.Input((None, None, 4))
    model = randomize(keras.Model(inputs, Deep(name="deep")(inputs)))
    folded, report = tfbn.fold(model)
    assert "'deep' (Deep), which does not run on random inputs" in report.kept[0].reason
    assert "no such" in report.kept[0].reason
    x = reference.data((3, *IMAGE))
    np.testing.assert_array_equal(folded(x), model(x, training=False))


def test_a_subclassed_model_is_opened_at_the_sizes_that_fit_it():
    class Skip(keras.Model):
        def __init__(self):
            super().__init__()
            self.stem = ConvBNReLU(name="stem")
            self.down, self.up = L.MaxPooling2D(5), L.UpSampling2D(5)

        def call(self, inputs, training=None):
            x = self.stem(inputs, training=training)
            return x + self.up(self.down(x))

    model = Skip()
    model(np.ones((1, 10, 10, 4), "float32"))
    folded, report = tfbn.fold(randomize(model))
    assert [entry.path for entry in report.folded] == ["stem/bn"]
    assert folded.inputs[0].shape == (None, 10, 10, 4)


def test_a_layer_that_is_given_a_mask_stays_whole():
    class Normalized(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True
            self.dense, self.bn = L.Dense(4, name="dense"), tfbn.BatchNorm(name="bn")

        def build(self, shape):
            self.dense.build(shape)
            self.bn.build(shape)

        def call(self, x):
            return self.bn(self.dense(x))

    inputs = keras.Input((5,), dtype="int32")
    x = L.Embedding(7, 4, mask_zero=True)(inputs)
    model = randomize(keras.Model(inputs, L.LSTM(3)(Normalized(name="own")(x))))
    folded, report = tfbn.fold(model)
    assert "which is given a mask" in report.kept[0].reason
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    np.testing.assert_array_equal(folded(x), model(x, training=False))


class NoConfig(L.Layer):
    def __init__(self, thing, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(4, name="inside")
        self.thing = thing

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


class Forgetful(L.Layer):
    """A copy that is made of its configuration has fewer weights."""

    def __init__(self, count=1, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, shape):
        self.factors = [self.add_weight(shape=(), name=f"factor{n}") for n in range(self.count)]

    def call(self, x):
        for factor in self.factors:
            x = x * factor
        return x

    def get_config(self):
        return {"name": self.name}


def test_a_layer_that_cannot_be_copied_is_shared_as_it_was():
    stubborn = NoConfig(object(), name="stubborn")
    forgetful = Forgetful(2, name="forgetful")
    inner = keras.Sequential([keras.Input((4,)), stubborn, forgetful], name="inner")
    model = keras.Sequential([keras.Input((4,)), L.Dense(4, name="dense"), tfbn.BatchNorm(), inner])
    randomize(model)
    stubborn.trainable = False  # in models that are not frozen, whose flags would set this one

    def state():
        layers = [layer.trainable for layer in layer_paths(model).values()]
        weights = [(weight.trainable, weight.numpy().tolist()) for weight in model.weights]
        return layers, weights

    before = state()
    folded, report = tfbn.fold(model)
    assert state() == before
    assert report.shared == ("inner/stubborn", "inner/forgetful")
    assert "shared with the given model: inner/stubborn, inner/forgetful" in str(report)
    assert folded.get_layer("inner").get_layer("stubborn") is stubborn
    assert folded.get_layer("dense") is not model.get_layer("dense")
    x = reference.data((5, 4))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32
    with pytest.raises(ValueError, match="'stubborn' .* cannot be copied"):
        tfbn.fold(model, dtype="float16")  # it would keep its types


def test_a_subclassed_model_that_cannot_be_opened_is_an_error(unchanged):
    class Own(ResNet):
        def call(self, inputs, training=None):
            return super().call(inputs, training) * tf.reduce_max(inputs)

    model = Own()
    model(np.ones((1, *IMAGE), "float32"))
    with (
        unchanged(model),
        pytest.raises(TypeError, match=r"cannot be read: it .* symbolic tensors; call"),
    ):
        tfbn.fold(model)
