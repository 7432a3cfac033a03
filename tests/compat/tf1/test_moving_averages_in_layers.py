"""`tf.train.ExponentialMovingAverage` in a VariableScopeLayer, against the same code in a session."""

import contextlib
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from paths import HELPERS
from tf1_averages import (
    EMA,
    PROGRAMS,
    TOLERANCE,
    Session,
    X,
    layer_of,
    run_as_update,
    weight,
    weights_kept,
    without_bias,
)
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1


@pytest.mark.parametrize("code", PROGRAMS)
@pytest.mark.parametrize("kind", ["eagerly", "in a function", "by XLA"])
def test_names_and_numbers_are_the_original_s(code, kind, tmp_path):
    layer, session = layer_of(code), Session(code)
    layer.build(X.shape)
    session.check(layer)
    call = layer
    if kind != "eagerly":
        call = tf.function(lambda x, training: layer(x, training=training), jit_compile=kind == "by XLA")
    for step in range(4):
        x = X * (step + 1) + step
        np.testing.assert_allclose(call(x, training=True), session(x, True), **TOLERANCE)
        session.check(layer)
    np.testing.assert_allclose(call(X, training=False), session(X, False), **TOLERANCE)
    session.check(layer)
    with session.session.graph.as_default():
        session.saver.save(session.session, str(tmp_path / "old"))
    restored = layer_of(code)
    restored.build(X.shape)
    compat.load_checkpoint(tmp_path / "old", restored)
    np.testing.assert_allclose(restored(X), session(X, False), **TOLERANCE)


def test_names_that_code_asks_for_are_the_original_s():
    seen = []

    def code(x, is_training):
        with tf1.variable_scope("net"):
            w, mean = weight(), tf.reduce_mean(x, 0, name="mean")
            ema = EMA(0.9)
            missing = [ema.average(w) is None, ema.average(mean) is None]
            names = [ema.average_name(w), ema.average_name(mean), ema.name]
            applied = tf.cond(is_training, lambda: ema.apply([w, mean]), tf.no_op)
            names += [ema.average_name(w), ema.average_name(mean), ema.average(w).name]
        collected = [each.name for each in tf1.moving_average_variables()]
        restored = {name: each.op.name for name, each in ema.variables_to_restore().items()}
        seen.append((missing, names, sorted(restored.items()), collected))
        with tf.control_dependencies([applied]):
            return x @ w

    Session(code)
    layer = layer_of(code)
    for training in (True, False):
        layer(X, training=training)
    original, built, trained, inferring = seen
    assert original[0] == [True, True]
    assert original[-1] == ["net/w:0"]
    assert built == original
    assert trained == original
    assert inferring[0] == [False, False]  # where it is found before `apply`, which it may leave out
    assert inferring[2:] == original[2:]


def python_bool(x, is_training):
    with tf1.variable_scope("bn"):
        mean = tf.reduce_mean(x, 0, name="mean")
        first, second = EMA(0.75), EMA(0.5)
        if is_training:
            with tf.control_dependencies([first.apply([mean]), second.apply([mean])]):
                return x - mean
        return x - first.average(mean) - second.average(mean)


keras.saving.register_keras_serializable("tests")(python_bool)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_code_that_applies_in_training_alone_is_fitted_and_saved(jit_compile, tmp_path):
    inputs = keras.Input(batch_shape=[8, 4])
    model = keras.Model(inputs, VariableScopeLayer(python_bool)(inputs))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(X, X, batch_size=8, epochs=2, shuffle=False, verbose=0)
    means = [X[:8].mean(0, dtype="f8"), X[8:].mean(0, dtype="f8")] * 2
    want = {}
    for name, decay in (("", 0.75), ("_1", 0.5)):
        kept = want[f"bn/bn/mean/ExponentialMovingAverage{name}"] = np.zeros(4)
        for mean in means:
            kept += (1 - decay) * (mean - kept)
    weights = model.layers[-1].variables_by_name
    assert weights.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(weights[name], value, **TOLERANCE)
    assert not model.trainable_weights
    np.testing.assert_allclose(model(X[:8]), X[:8] - sum(want.values()), **TOLERANCE)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X[:8]), model(X[:8]))


def test_averages_are_found_from_another_scope():
    def code(x, is_training):
        ema = EMA(0.5)

        def averaged(getter, name, *args, **kwargs):
            variable = getter(name, *args, **kwargs)
            return ema.average(variable) if name == "net/w" else variable

        def network(**kwargs):
            with tf1.variable_scope("net", **kwargs):
                return x @ weight() + weight("other", (4,))

        if is_training:
            y = network()
            with tf.control_dependencies([ema.apply()]):
                return tf.identity(y)
        return network(custom_getter=averaged)

    layer = VariableScopeLayer(code)
    layer(X, training=True)
    weights = layer.variables_by_name
    weights["net/w"].assign(np.zeros((4, 4)))
    kept = weights["net/w/ExponentialMovingAverage"]
    assert np.abs(kept).min() > 0
    np.testing.assert_allclose(layer(X), X @ kept.numpy() + weights["net/other"].numpy(), **TOLERANCE)


def test_code_whose_averages_live_outside():
    """As in classes of old programs, made before any network."""
    ema = EMA(0.9)

    def code(x, is_training):
        mean = tf.reduce_mean(x, 0, name="mean")
        run_as_update(ema.apply([mean]))
        return x - ema.average(mean)

    layers = [VariableScopeLayer(code) for _ in range(2)]
    for layer in layers:
        layer(X, training=True)
        layer(2 * X, training=True)
        (kept,) = layer.weights
        np.testing.assert_allclose(kept, (0.9 * 0.1 + 0.2) * X.mean(0), **TOLERANCE)


def test_stateless_call():
    layer, other = layer_of(without_bias), layer_of(without_bias)
    other(X, training=True)
    layer.build(X.shape)
    before = layer.get_weights()
    groups = (other.trainable_variables, other.non_trainable_variables)
    values = [[tf.constant(each) for each in group] for group in groups]
    y, updated = layer.stateless_call(*values, 2 * X, training=True)
    np.testing.assert_allclose(y, other(2 * X, training=True), **TOLERANCE)
    for got, want in zip(updated, other.non_trainable_variables, strict=True):
        np.testing.assert_allclose(got, want, **TOLERANCE)
    for got, want in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_mixed_precision_keeps_digits_and_gives_the_code_its_type():
    seen = []

    def code(x, is_training):
        w, ema = tf1.get_variable("w", [4, 4]), EMA(0.999)
        mean = tf.reduce_mean(x, 0, name="mean")
        run_as_update(ema.apply([w, mean]))
        seen.append([ema.average(each).dtype for each in (w, mean)])
        return x @ w - tf.cond(is_training, lambda: mean, lambda: ema.average(mean))

    keras.config.set_dtype_policy("mixed_float16")
    layer = layer_of(code)
    for _ in range(3):
        layer(X, training=True)
    assert layer(X).dtype == tf.float16
    assert {each.dtype for each in layer.weights} == {"float32"}
    assert seen[0] == [tf.float16] * 2
    weights = layer.variables_by_name
    assert list(weights) == ["w", "w/ExponentialMovingAverage", "mean/ExponentialMovingAverage"]
    # Half has 11 bits, of which the mean is made once; 0.999 would not move a sum of them.
    want = (1 - 0.999**3) * X.mean(0)
    np.testing.assert_allclose(weights["mean/ExponentialMovingAverage"], want, rtol=1e-2)
    np.testing.assert_allclose(weights["w/ExponentialMovingAverage"], weights["w"], atol=1e-3)


def test_built_while_keras_infers_shapes():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layer_of(weights_kept)

        def call(self, x, training=None):
            return self.inner(x, training=training)

    model, session = Model(), Session(weights_kept)
    assert model.compute_output_spec(keras.KerasTensor(X.shape)).shape == X.shape
    model(X, training=True), session(X, True)
    session.check(model.inner)


# In a process of its own, for there must be two devices from its start.
MIRRORED = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
sys.path.insert(0, sys.argv[1])
from tf1_averages import X, TOLERANCE, in_branch, layer_of, of_trained_weights
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layers = [layer_of(in_branch), layer_of(of_trained_weights)]
    model = keras.Sequential([keras.Input(batch_shape=(8, 4)), *layers])
    model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=False)
averaged, kept = (layer.variables_by_name for layer in layers)
want = kept["w"].numpy().astype("f8")
np.testing.assert_array_equal(kept["w/ExponentialMovingAverage"].numpy(), want)
for _ in range(3):
    want += 0.3 * (kept["w"].numpy() - want)
    model.fit(X, X, batch_size=16, shuffle=False, verbose=0)
assert list(kept) == ["w", "w/ExponentialMovingAverage"], list(kept)
np.testing.assert_allclose(kept["w/ExponentialMovingAverage"].numpy(), want, **TOLERANCE)
assert np.abs(kept["w"].numpy() - want).max() > 1e-3
# Linear in the batch: the mean of what two halves give is the whole's.
of_mean, of_largest = (f"net/bn/net/bn/{name}/Averages" for name in ("Mean", "cond/Max"))
np.testing.assert_allclose(averaged[of_mean].numpy(), X.mean(0), **TOLERANCE)
halves = (X[:8].max(0) + X[8:].max(0)) / 2
np.testing.assert_allclose(averaged[of_largest].numpy(), halves, **TOLERANCE)
assert len(averaged) == 6, list(averaged)
"""


def test_mirrored_strategy(tmp_path):
    subprocess.run([sys.executable, "-c", MIRRORED, HELPERS], check=True, cwd=tmp_path)


def test_errors():
    def failing(code, kind, match):
        with pytest.raises(kind, match=match):
            VariableScopeLayer(code, name="it")(X)

    def applied(*values):
        return EMA(0.9).apply([value() for value in values])

    def counter():
        return tf1.get_variable("n", [], tf.int32, tf1.zeros_initializer(), trainable=False)

    with tf.Graph().as_default(), pytest.raises(TypeError) as original:
        applied(counter)
    assert str(original.value) == "The variables must be half, float, or double: n:0"
    failing(lambda _: applied(counter), TypeError, f"^{original.value}$")
    failing(
        lambda _: applied(lambda: X), TypeError, r"ExponentialMovingAverage.apply in 'it' averages var"
    )

    def reused(x):
        with tf1.variable_scope("a", reuse=True):
            return EMA(0.9).apply([tf.reduce_mean(x, 0, name="m")])

    failing(reused, ValueError, "Variable a/a/m/ExponentialMovingAverage does not exist")

    def late(x, is_training):
        return x if is_training else applied(lambda: tf.reduce_mean(x, name="late"))

    failing(late, ValueError, "no variable 'late/ExponentialMovingAverage': the code did not ask for it")


METHODS = ("apply", "average", "average_name")


def test_tensorflow_s_class_is_as_it_was_afterwards():
    before = [getattr(EMA, name) for name in METHODS]

    def code(x):
        with tf.Graph().as_default():  # a graph of its own, as outside
            v = tf1.get_variable("v", [2])
            applied.append(EMA(0.9).apply([v]).graph)
            variables.extend(tf1.global_variables())
        raise KeyError("broken")

    applied, variables = [], []
    with pytest.raises(KeyError, match="broken"):
        VariableScopeLayer(code).build((2,))
    assert [each.name for each in variables] == ["v:0", "v/ExponentialMovingAverage:0"]
    assert [getattr(EMA, name) for name in METHODS] == before
    with pytest.raises(TypeError, match="does not support non-Variable tensors when eager"):
        EMA(0.9).apply([tf.constant(X)])


def test_layers_traced_by_two_threads():
    before = [getattr(EMA, name) for name in METHODS]
    inside, left, layers = threading.Event(), threading.Event(), []

    def first(x):
        assert inside.wait(600)
        return python_bool(x, True)

    def second(x):
        inside.set()
        assert left.wait(600)
        return python_bool(x, True)

    def trace(code, done):
        with contextlib.ExitStack() as stack:
            stack.callback(done.set)
            layer = VariableScopeLayer(code)
            layer.build(X.shape)
            layers.append(layer)

    threads = [threading.Thread(target=trace, args=each) for each in ((first, left), (second, inside))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(layer.weights) for layer in layers] == [2, 2]
    assert [getattr(EMA, name) for name in METHODS] == before


def test_slots_of_tensorflow_s_own():
    from tensorflow.python.training import slot_creator  # noqa: PLC0415  (as old code has it)

    def code(x):
        mean = tf.reduce_mean(x, 0, name="mean")
        slot = slot_creator.create_zeros_slot(mean, "slot", colocate_with_primary=False)
        run_as_update(tf1.assign_add(slot, mean))
        return x - slot

    layer = VariableScopeLayer(code)
    for _ in range(2):
        layer(X, training=True)
    assert list(layer.variables_by_name) == ["mean/slot"]
    np.testing.assert_allclose(layer(X), X - 2 * X.mean(0), **TOLERANCE)
