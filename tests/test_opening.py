"""tfbn.fold looks inside custom layers and subclassed models, and shares what it cannot copy."""

import keras
import numpy as np
import pytest

import reference
import tfbn
from custom_layers import IMAGE, Block, ConvBNReLU, resnet
from networks import FLOAT32, outputs, randomize, relative_difference
from tfbn.batch_norms import batch_norms, layer_paths
from tfbn.opening import opened

L = keras.layers


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
    inner.trainable = False
    stubborn.trainable = True  # in a frozen model, whose flag, set on its copy, would freeze this one

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


def test_a_layer_that_keras_does_not_track_is_named_by_its_name():
    class Holder:
        dense = L.Dense(4, name="hidden")

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.bn = tfbn.BatchNorm(name="bn")

        def call(self, inputs, training=None):
            return self.bn(Holder.dense(inputs), training=training)

    model = Own()
    model(np.ones((2, 3), "float32"))
    assert tfbn.fold(model)[1].folded[0].into == ("hidden",)


def test_a_layer_called_on_several_sizes_is_one_model_that_can_be_loaded(tmp_path):
    model = randomize(called_on_two_sizes())
    folded, _ = tfbn.fold(model)
    assert len([layer for layer in folded.layers if isinstance(layer, keras.Model)]) == 1
    folded.save(tmp_path / "m.keras")
    x = samples(model)
    loaded = outputs(keras.models.load_model(tmp_path / "m.keras"), x)
    for got, want in zip(loaded, outputs(model, x), strict=True):
        assert relative_difference(got, want) < FLOAT32


class Steps(ConvBNReLU):
    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


def by_steps():
    return keras.Sequential([keras.Input((5, *IMAGE)), L.TimeDistributed(Steps(name="a"), name="each")])


def by_steps_in_a_model():
    inputs = keras.Input(IMAGE)
    inner = keras.Model(inputs, Steps(name="a")(inputs), name="inner")
    return keras.Sequential([keras.Input((5, *IMAGE)), L.TimeDistributed(inner, name="each")])


def by_steps_twice():
    inner = L.TimeDistributed(Steps(name="a"), name="inner")
    return keras.Sequential([keras.Input((2, 5, *IMAGE)), L.TimeDistributed(inner, name="outer")])


def by_steps_in_a_layer():
    class Inside(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.each = L.TimeDistributed(Steps(name="a"), name="each")

        def build(self, shape):
            self.each.build(shape)

        def call(self, inputs):
            return self.each(inputs)

    return keras.Sequential([keras.Input((5, *IMAGE)), Inside(name="inside")])


def by_steps_called_twice():
    each = L.TimeDistributed(Steps(name="a"), name="each")
    inputs = keras.Input((5, *IMAGE))
    return keras.Model(inputs, each(each(inputs)))


BY_STEPS = [by_steps, by_steps_called_twice, by_steps_in_a_model, by_steps_twice, by_steps_in_a_layer]


@pytest.mark.parametrize("make", BY_STEPS, ids=lambda make: make.__name__)
def test_layers_called_for_each_step_are_opened(make, tmp_path, unchanged):
    model = randomize(make())
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == list(batch_norms(model))
    folded.save(tmp_path / "folded.keras")
    x = samples(model)
    for other in (folded, keras.models.load_model(tmp_path / "folded.keras")):
        assert relative_difference(other(x), model(x, training=False)) < FLOAT32


class Masked(L.Layer):
    def __init__(self, uses=False, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.bn = L.Dense(4, name="dense"), L.BatchNormalization(name="bn")
        self.uses, self.supports_masking = uses, True

    def build(self, shape):
        self.dense.build(shape)
        self.bn.build((*shape[:-1], 4))

    def call(self, inputs, mask=None, training=None):
        x = self.bn(self.dense(inputs), training=training)
        return x * keras.ops.cast(mask, x.dtype)[..., None] if self.uses and mask is not None else x

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


def masked(layer):
    return keras.Sequential([keras.Input((7, 3)), L.Masking(), layer, L.LSTM(5)])


def test_the_inside_of_a_layer_under_a_mask():
    model = randomize(masked(Masked(name="a")))
    x = reference.data((4, 7, 3))
    x[0, 4:] = x[1, :3] = x[2] = 0
    with opened(model) as (shown, closed):
        assert not closed
        np.testing.assert_array_equal(shown(x, training=False), model(x, training=False))
        assert isinstance(shown.get_layer("a"), keras.Model)
    folded, _ = tfbn.fold(model)
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: Masked(uses=True, name="a"), "hands on a mask that its last operation does not"),
        (lambda: L.TimeDistributed(Masked(name="a"), name="each"), "is given a mask"),
    ],
)
def test_a_layer_that_does_more_with_a_mask_stays(layer, why):
    model = randomize(masked(layer()))
    folded, report = tfbn.fold(model)
    assert why in report.kept[0].reason
    x = reference.data((4, 7, 3))
    x[:, 4:] = 0
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_a_batch_norm_that_is_never_called_says_so():
    class Idle(ConvBNReLU):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.idle = L.BatchNormalization(name="idle")

        def build(self, shape):
            super().build(shape)
            self.idle.build(shape)

    model = randomize(keras.Sequential([keras.Input(IMAGE), Idle(name="a")]))
    _, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["a/bn"]
    assert [(entry.path, entry.reason) for entry in report.kept] == [
        ("a/idle", "nothing calls it at inference")
    ]


class Tied(keras.Model):
    """Multiplies by a kernel of another layer itself."""

    def __init__(self):
        super().__init__()
        self.first, self.second = L.Dense(4, name="first"), L.Dense(3, name="second")
        self.bn = L.BatchNormalization(name="bn")

    def call(self, inputs, training=None):
        x = self.bn(self.second(self.first(inputs)), training=training)
        return keras.ops.matmul(x, self.first.kernel)


@pytest.mark.filterwarnings("ignore:.*moving statistics")
def test_a_weight_that_is_an_argument_of_a_call_is_the_folded_models_own(tmp_path):
    model = Tied()
    x = reference.data((5, 3))
    model(x)
    randomize(model)
    want = model(x, training=False).numpy()
    folded, _ = tfbn.fold(model)
    assert tfbn.export(model, tmp_path / "m", samples=x).frozen
    folded.save(tmp_path / "m.keras")
    model.first.kernel.assign(model.first.kernel * 0)
    for other in (folded, keras.models.load_model(tmp_path / "m.keras")):
        assert relative_difference(other(x), want) < FLOAT32
