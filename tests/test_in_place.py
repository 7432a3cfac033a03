"""tfbn.convert(in_place=True): Keras' own layers, computed by our kernels."""

import copy
import gc
import inspect
import pickle
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize, relative_difference
from tfbn import kernels
from tfbn.batch_norms import batch_norms, layer_paths
from tfbn.in_place import has_our_kernels

L = keras.layers
STOCK = L.BatchNormalization
X = reference.data((32, 8, 8, 3))
Y = reference.data((32, 2), seed=1)


class Block(L.Layer):
    """A custom layer that cannot be made from its configuration."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [L.Conv2D(filters, 3, padding="same", use_bias=False) for _ in range(2)]
        self.norms = {"a": STOCK(name="a"), "b": STOCK(name="b", momentum=0.9)}

    def call(self, x, training=None):
        for convolution, norm in zip(self.convolutions, self.norms.values(), strict=True):
            x = keras.activations.silu(norm(convolution(x), training=training))
        return x


class Net(keras.Model):
    """With a call and a training step of its own; a batch norm is shared, and one frozen."""

    def __init__(self):
        super().__init__()
        self.blocks = [Block(4, name="one"), Block(6, name="two")]
        self.shared = STOCK(name="shared", scale=False)
        self.frozen = STOCK(name="frozen")
        self.frozen.trainable = False
        self.head = keras.Sequential([L.GlobalAveragePooling2D(), STOCK(name="last"), L.Dense(2)])

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x, training=training)
        x = self.shared(self.shared(x, training=training), training=training)
        return self.head(self.frozen(x, training=training), training=training)

    def train_step(self, data):
        return super().train_step(data)


def net(model=None):
    keras.utils.set_random_seed(3)
    model = model or Net()
    model(X[:2])
    return model


def compiled(model, rate=0.01, **arguments):
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse", **arguments)
    return model


def fitted(model, epochs=5):
    """Four steps in each epoch."""
    history = model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


@pytest.fixture
def traced(monkeypatch):
    """Counts how often our kernels are traced, by their names."""
    counts = dict.fromkeys(("normalize_batch", "normalize_at_inference"), 0)

    def counting(name):
        original = getattr(kernels, name)

        def count(*arguments):
            counts[name] += 1
            return original(*arguments)

        monkeypatch.setattr(kernels, name, count)

    for name in counts:
        counting(name)
    return counts


@pytest.mark.both
@pytest.mark.parametrize("arguments", [{"jit_compile": False}, {"jit_compile": True}])
def test_training_goes_on_as_with_the_stock_model(arguments, traced):
    stock, ours = compiled(net(), **arguments), compiled(net(), **arguments)
    assert tfbn.convert(ours, in_place=True) is ours
    assert len(batch_norms(ours)) == 7
    assert all(has_our_kernels(layer) for layer in batch_norms(ours).values())
    # 1e-5, the rounding of twenty steps.
    np.testing.assert_allclose(fitted(ours), fitted(stock), rtol=1e-5)
    assert traced["normalize_batch"] >= 7  # six that train, one of them twice
    for got, want in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert relative_difference(ours.predict(X, verbose=0), stock.predict(X, verbose=0)) < 1e-5


def test_everything_but_the_kernels_stays():
    model = compiled(net())
    fitted(model, 1)
    kept = [*model.variables, *model.optimizer.variables, *layer_paths(model).values()]
    paths = [each.path for each in [*model.variables, *model.optimizer.variables]]
    before = [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]
    layers = layer_paths(model)
    tfbn.convert(model, in_place=True)
    after = [*model.variables, *model.optimizer.variables, *layer_paths(model).values()]
    assert all(old is new for old, new in zip(kept, after, strict=True))
    assert paths == [each.path for each in [*model.variables, *model.optimizer.variables]]
    for old, new in zip(before, [*model.variables, *model.optimizer.variables], strict=True):
        np.testing.assert_array_equal(old, new)
    assert layer_paths(model).keys() == layers.keys()
    assert model.compiled
    assert {type(layer) for layer in batch_norms(model).values()} == {STOCK}


def test_what_was_traced_is_traced_anew_there_and_back(traced):
    model = compiled(net())
    for _ in range(2):
        fitted(model, 1)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        assert set(traced.values()) == {0}
        tfbn.convert(model, in_place=True)
        fitted(model, 1)
        assert traced["normalize_batch"] >= 7
        counted = traced["normalize_at_inference"]
        model.evaluate(X, Y, verbose=0)
        assert traced["normalize_at_inference"] >= counted + 8
        counted = traced["normalize_at_inference"]
        model.predict(X, verbose=0)
        assert traced["normalize_at_inference"] >= counted + 8
        train_function = model.train_function
        tfbn.convert(model, in_place=True)  # again changes nothing
        assert model.train_function is train_function
        tfbn.convert(model, to=STOCK, in_place=True)
        assert not any(has_our_kernels(layer) for layer in batch_norms(model).values())
        assert not any("call" in vars(layer) for layer in layer_paths(model).values())
        traced.update(dict.fromkeys(traced, 0))


def test_training_goes_on_after_the_change():
    stock, changing = compiled(net()), compiled(net())
    losses = fitted(stock, 6)
    got = fitted(changing, 2)
    tfbn.convert(changing, in_place=True)
    got += fitted(changing, 2)
    tfbn.convert(changing, to=STOCK, in_place=True)
    got += fitted(changing, 2)
    np.testing.assert_allclose(got, losses, rtol=1e-5)


def functional():
    image = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 4)), STOCK(name="bn"), L.ReLU()], name="inner")
    x = inner(L.Conv2D(4, 3, padding="same", name="conv")(image))
    x = L.TimeDistributed(STOCK(name="step"), name="timed")(x)
    return randomize(keras.Model(image, L.Dense(2, name="dense")(L.Flatten()(STOCK(name="outer")(x)))))


def test_it_is_saved_as_the_stock_model_and_loads_without_tfbn(tmp_path):
    model, stock = functional(), functional()
    written = keras.saving.serialize_keras_object(model)
    tfbn.convert(model, in_place=True)
    assert keras.saving.serialize_keras_object(model) == written
    fitted(compiled(model, rate=1e-4), 1)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    compiled(stock).optimizer.build(stock.trainable_variables)
    stock.load_weights(tmp_path / "m.weights.h5")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, keras, numpy as np; model = keras.models.load_model('m.keras');"
        "np.save('y.npy', model(np.load('x.npy'))); assert 'tfbn' not in sys.modules;"
        "assert int(model.optimizer.iterations) == 4"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for got in (np.load(tmp_path / "y.npy"), stock(X)):
        assert relative_difference(got, model(X)) < 1e-5


def test_copies_are_stock_models():
    model = tfbn.convert(functional(), in_place=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    copies = {"clone": clone, "deep": copy.deepcopy(model), "pickle": pickle.loads(pickle.dumps(model))}
    copies |= {"convert": tfbn.convert(model, to=STOCK), "ours": tfbn.convert(model)}
    for name, each in copies.items():
        found = batch_norms(each)
        assert found.keys() == batch_norms(model).keys()
        assert {type(layer) for layer in found.values()} == {tfbn.BatchNorm if name == "ours" else STOCK}
        assert not any(has_our_kernels(layer) for layer in found.values())
        assert relative_difference(each(X), model(X)) < 1e-5


def test_fold_export_and_recalibrate_take_it_for_the_stock_model(tmp_path):
    model, stock = tfbn.convert(functional(), in_place=True), functional()
    folded, report = tfbn.fold(model)
    assert str(report) == str(tfbn.fold(stock)[1])
    assert relative_difference(folded(X), stock(X)) < 1e-5
    assert "3 of 3 batch norms folded" in str(tfbn.export(model, tmp_path / "m"))
    tfbn.recalibrate(model, X)
    tfbn.recalibrate(stock, X)
    assert all(has_our_kernels(layer) for layer in batch_norms(model).values())
    for got, want in zip(model.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def cases():
    yield "plain", {}, "float32"
    yield "bare", {"center": False, "scale": False}, "float32"
    yield "first_axis", {"axis": 1, "momentum": 0.3, "epsilon": 1e-2}, "float32"
    yield "middle_axis", {"axis": 2}, "float32"
    yield "from_the_end", {"axis": -3, "scale": False}, "float32"
    yield "frozen", {"trainable": False}, "float32"
    yield "synchronized", {"synchronized": True}, "float32"
    yield "penalty", {"gamma_regularizer": "l2", "activity_regularizer": "l2"}, "float32"
    for policy in ("float64", "float16", "mixed_float16", "mixed_bfloat16"):
        yield policy, {}, policy
    if "renorm" in inspect.signature(STOCK).parameters:
        yield "renorm", {"renorm": True, "renorm_clipping": {"rmax": 1.5}}, "float32"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("arguments", "policy"), [pytest.param(*case, id=name) for name, *case in cases()]
)
def test_each_layer_computes_what_keras_does(arguments, policy, training):
    x = reference.data((6, 5, 4, 3))
    results = []
    for ours in (False, True):
        model = randomize(chain((5, 4, 3), STOCK(dtype=policy, **arguments)))
        if ours:
            tfbn.convert(model, in_place=True)
        with tf.GradientTape() as tape:
            inputs = tf.constant(x, model.layers[-1].compute_dtype)
            tape.watch(inputs)
            outputs = model(inputs, training=training)
            loss = tf.reduce_sum(1e-2 * tf.cast(outputs, "float64") ** 3) + float(sum(model.losses))
        slopes = tape.gradient(loss, [inputs, *[weight.value for weight in model.trainable_weights]])
        results.append([outputs, *slopes, *model.get_weights()])
    tolerance = {"float64": 1e-12, "mixed_bfloat16": 2e-2, "float16": 4e-3, "mixed_float16": 4e-3}
    for expected, computed in zip(*results, strict=True):
        assert computed.dtype == expected.dtype
        got, want = (np.asarray(tf.cast(array, "float64")) for array in (computed, expected))
        error = tolerance.get(policy, 1e-5) * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=error)


@pytest.mark.parametrize("training", [True, False])
def test_masks_count_as_with_keras(training):
    x = reference.data((4, 6, 3))
    x[:, 4:] = 0  # masked
    got = []
    for ours in (False, True):
        model = randomize(chain((6, 3), L.Masking(), STOCK(name="bn")))
        model = tfbn.convert(model, in_place=True) if ours else model
        got.append([model(x, training=training), *model.get_weights()])
    for want, array in zip(*got, strict=True):
        np.testing.assert_allclose(array, want, rtol=1e-6, atol=1e-6)


def test_integers_and_symbolic_tensors():
    model = randomize(chain((3,), STOCK(autocast=False), dtype="int32"))
    x = np.arange(12, dtype="int32").reshape(4, 3)
    want = model(x)
    tfbn.convert(model, in_place=True)
    assert relative_difference(model(x), want) < 1e-6
    symbolic = model.layers[-1].call(keras.Input((3,)))
    assert (symbolic.shape, symbolic.dtype) == ((None, 3), "float32")


def test_what_computes_something_else_is_left_and_named(traced):
    class Same(STOCK):
        def get_config(self):
            return super().get_config()

    class OwnCall(STOCK):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask) * 2

    class OwnMoments(STOCK):
        def _moments(self, inputs, mask):
            return super()._moments(inputs * 2, mask)

    patched = STOCK(name="patched")
    patched.call = call = lambda inputs, training=None, mask=None: inputs
    model = chain((3,), Same(name="same"), OwnCall(name="call"), OwnMoments(name="moments"), patched)
    x = reference.data((5, 3))
    want = model(x)
    with pytest.warns(
        UserWarning, match="^Left as they are: call, moments, patched, subclasses of a ba"
    ):
        tfbn.convert(model, in_place=True)
    assert [path for path, layer in layer_paths(model).items() if has_our_kernels(layer)] == ["same"]
    assert relative_difference(model(x), want) < 1e-6
    assert traced["normalize_at_inference"] == 1
    tfbn.convert(model, to=STOCK, in_place=True)
    assert vars(patched)["call"] is call


def test_our_own_layers_stay_ours():
    model = chain((3,), tfbn.BatchNorm(name="ours"), STOCK(name="stock"))
    tfbn.convert(model, in_place=True)
    with pytest.warns(UserWarning, match="^Left as they are: ours, tfbn's own layers, .* in a copy of"):
        tfbn.convert(model, to=STOCK, in_place=True)
    assert not has_our_kernels(model.get_layer("stock"))


def test_an_error_leaves_all_as_it_was():
    class Locked(keras.Sequential):
        locked = False

        def __setattr__(self, name, value):
            if self.locked and name == "test_function":
                raise RuntimeError("locked")
            super().__setattr__(name, value)

    model = compiled(Locked([keras.Input((8, 8, 3)), STOCK(), L.Flatten(), L.Dense(2)]))
    fitted(model, 1)
    model.evaluate(X, Y, verbose=0)
    functions = [model.train_function, model.test_function]
    Locked.locked = True
    with pytest.raises(RuntimeError, match="locked"):
        tfbn.convert(model, in_place=True)
    assert not has_our_kernels(model.layers[0])
    assert [model.train_function, model.test_function] == functions


def test_arguments_that_do_not_go_together():
    model = chain((3,), STOCK(name="bn"))
    with pytest.raises(ValueError, match="^in_place=True and data_format= exclude each other, .*_last'"):
        tfbn.convert(model, data_format="channels_last", in_place=True)
    with pytest.raises(TypeError, match="^in_place must be True or False, received 'yes'"):
        tfbn.convert(model, in_place="yes")
    with pytest.raises(TypeError, match="^to must be tfbn.BatchNorm or keras"):
        tfbn.convert(model, to=tfbn.BatchRenorm, in_place=True)
    with pytest.raises(TypeError, match="^convert needs a keras.Model, received BatchNormalization"):
        tfbn.convert(model.layers[-1], in_place=True)
    with pytest.raises(ValueError, match="is not built, so it has no weights"):
        tfbn.convert(keras.Sequential([STOCK()]), in_place=True)
    assert not has_our_kernels(model.get_layer("bn"))


def test_what_cannot_be_copied_is_told_of_it():
    copyable = keras.Sequential([keras.Input((8, 8, 3)), STOCK()])
    image = keras.Input((8, 8, 3))
    for model in (net(), keras.Model(image, Block(4)(copyable(image)))):
        with pytest.raises((TypeError, ValueError), match="change their kernels only: in_place=True"):
            tfbn.convert(model)
        tfbn.convert(model, in_place=True)


def test_a_changed_model_can_be_forgotten():
    model = tfbn.convert(chain((3,), STOCK()), in_place=True)
    layer = weakref.ref(model.layers[-1])
    del model
    gc.collect()
    assert layer() is None
