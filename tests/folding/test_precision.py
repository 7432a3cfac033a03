"""tfbn.fold(dtype=): scaled in float64 first, and then rounded once."""

import keras
import ml_dtypes
import numpy as np
import pytest

import reference
import tfbn
from networks import chain, relative_difference
from tfbn.folding.core.kernel_arithmetic import ScaledKernel, round_to

pytestmark = pytest.mark.both
L = keras.layers


def network(policy="float32"):
    keras.config.set_dtype_policy(policy)
    steps = (
        L.Conv2D(4, 3, name="conv"),
        tfbn.BatchNorm(),
        L.ReLU(),
        L.TimeDistributed(L.Dense(3)),
        L.Reshape((-1, 3)),
        L.Bidirectional(L.SimpleRNN(2, recurrent_initializer="glorot_uniform")),
        L.Dense(2),
    )
    return chain((8, 8, 4), *steps)


def dtypes(model):
    return {variable.dtype for variable in model.variables}


def test_no_rounding_of_the_old_policy_is_left():
    """Keras 3.8 and 3.9 write a layer's cast of its input into the graph."""
    dense = L.Dense(3, use_bias=False, dtype="mixed_float16")
    model = chain((4,), dense, L.ReLU(dtype="mixed_float16"))
    x = reference.data((5, 4), dtype="float32")
    want = np.maximum(x.astype("float64") @ dense.kernel.numpy(), 0)
    assert relative_difference(model(x), want) > 1e-5  # float16, which has 1e-3
    assert relative_difference(tfbn.fold(model, "float32")[0](x), want) < 1e-6
    again = tfbn.fold(model)[0]
    assert [type(operation) for operation in again.operations] == [
        type(operation) for operation in model.operations
    ]
    np.testing.assert_array_equal(again(x), model(x))


def test_a_cast_of_the_model_itself_stays():
    inputs = keras.Input((4,), name="x")
    short = keras.ops.cast(inputs, "float16")
    model = keras.Model(inputs, {"cast": short, "double": short * 2, "dense": L.Dense(3)(short)})
    x = reference.data((5, 4), dtype="float32")
    got, want = tfbn.fold(model)[0](x), model(x)
    for name in want:
        assert got[name].dtype == want[name].dtype
        np.testing.assert_array_equal(got[name], want[name])


@pytest.mark.parametrize(
    ("given", "asked", "variables", "output", "tolerance"),
    [
        # Tolerances: the coarser type's unit roundoff through half a dozen layers.
        ("float32", "float16", "float16", "float16", 2e-2),
        ("float32", "bfloat16", "bfloat16", "bfloat16", 1e-1),
        ("float32", "mixed_float16", "float32", "float16", 2e-2),
        ("float32", "float64", "float64", "float64", 1e-5),
        ("float16", "float32", "float32", "float32", 2e-2),
        ("mixed_float16", "float32", "float32", "float32", 2e-2),
        ("float16", None, "float16", "float16", 2e-2),
    ],
)
def test_the_result_has_the_policy(given, asked, variables, output, tolerance):
    model = network(given)
    folded, report = tfbn.fold(model, dtype=asked)
    assert len(report.folded) == 1
    floats = {dtype for dtype in dtypes(folded) if "float" in dtype}
    assert floats == {variables}
    x = reference.data((3, 8, 8, 4), dtype=str(model.inputs[0].dtype))
    got = folded(x)
    assert got.dtype.name == output
    assert relative_difference(got, model(x)) < tolerance


def test_weights_are_rounded_once():
    model = chain((5,), L.Dense(64, name="dense"), tfbn.BatchNorm(name="bn"))
    bn = model.get_layer("bn")
    scale = np.float64(bn.gamma) / np.sqrt(np.float64(bn.moving_variance) + bn.epsilon)
    kernel = np.float64(model.get_layer("dense").kernel.numpy()) * scale
    for dtype in ("float16", "bfloat16"):
        folded, _ = tfbn.fold(model, dtype=dtype)
        got = folded.get_layer("dense").kernel.numpy()
        np.testing.assert_array_equal(got.astype("float64"), nearest(kernel, got.dtype))


def nearest(array, dtype):
    """The nearest value of a short type, by comparing all three candidates in float64."""
    near = array.astype("float32").astype(dtype)
    steps = near.view("uint16")[..., None].astype("int64") + np.arange(-1, 2)
    candidates = steps.astype("uint16").view(dtype).astype("float64")
    distances = np.abs(candidates - array[..., None])
    return np.take_along_axis(candidates, distances.argmin(-1)[..., None], -1)[..., 0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rounding_near_the_middle_between_two_values(dtype):
    bits = {"float16": 11, "bfloat16": 8, "float32": 24}[dtype]
    middle = 1 + 2.0**-bits
    above, below = middle + 2.0**-50, middle - 2.0**-50
    array = np.array([above, below, -above, -below, middle, 0, np.inf, 1e300])
    want = [1 + 2.0 ** (1 - bits), 1, -1 - 2.0 ** (1 - bits), -1, 1, 0, np.inf, np.inf]
    got = round_to(array, dtype)
    assert got.dtype == (ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(got.astype("float64"), want)


def test_kernels_are_scaled_in_blocks(monkeypatch):
    monkeypatch.setattr("tfbn.folding.core.kernel_arithmetic.BLOCK", 30)
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(7, 5, 6)).astype("float32")
    factors = rng.normal(size=(7, 1, 1)), rng.normal(size=(1, 5, 6))
    want = (kernel.astype("float64") * factors[0] * factors[1]).astype("float32")
    np.testing.assert_array_equal(ScaledKernel(kernel, factors).round_to("float32"), want)
    one_by_one = ScaledKernel(kernel).times(factors[0]).times(factors[1])
    np.testing.assert_array_equal(one_by_one.round_to("float32"), want)
    term = rng.normal(size=(1, 5, 6))
    want = ((kernel + term) * factors[0] * factors[1]).astype("float32")
    scaled = ScaledKernel(kernel, (), term).times(factors[0]).times(factors[1])
    np.testing.assert_allclose(scaled.round_to("float32"), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layer", [L.Dense, L.LSTM])
def test_layers_of_several_blocks_take_up_what_stands_before_them(layer, monkeypatch):
    monkeypatch.setattr("tfbn.folding.core.kernel_arithmetic.BLOCK", 16)
    model = chain((5, 8), L.Activation("tanh"), tfbn.BatchNorm(), layer(6))
    folded, report = tfbn.fold(model)
    assert len(report.folded) == 1
    x = reference.data((3, 5, 8))
    assert relative_difference(folded(x), model(x)) < 1e-5


def test_layers_of_integers_and_strings_keep_their_types():
    words = keras.Input((3,), dtype="string")
    x = L.StringLookup(vocabulary=["a", "b"])(words)
    x = L.Dense(4)(L.Flatten()(L.Embedding(4, 5)(x)))
    model = keras.Model(words, tfbn.BatchNorm()(x))
    folded, report = tfbn.fold(model, dtype="float16")
    assert len(report.folded) == 1
    given = np.array([["a", "b", "z"]])
    assert relative_difference(folded(given), model(given)) < 1e-2
    assert folded.layers[1].compute_dtype == model.layers[1].compute_dtype


def test_a_model_inside_a_wrapper_keeps_the_type_of_its_input():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    model = chain((5, 4), L.TimeDistributed(inner), L.Dense(2), tfbn.BatchNorm())
    folded, report = tfbn.fold(model, dtype="mixed_float16")
    assert len(report.folded) == 1
    (wrapper,) = (layer for layer in folded.layers if isinstance(layer, L.TimeDistributed))
    assert wrapper.layer.layers[0].compute_dtype == "float16"
    x = reference.data((3, 5, 4))
    assert relative_difference(folded(x), model(x)) < 1e-2


@pytest.mark.parametrize("dtype", ["int8", "string", 16, "float8"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=f"dtype must be one of float16, .*, received {dtype!r}"):
        tfbn.fold(network(), dtype=dtype)


def test_a_policy_object_is_taken():
    folded, _ = tfbn.fold(network(), dtype=keras.DTypePolicy("float16"))
    assert folded.layers[-1].dtype_policy.name == "float16"


def test_a_type_too_narrow_for_a_weight_is_refused():
    model = chain((4,), L.Dense(3, name="dense"), L.ReLU())
    kernel = model.get_layer("dense").kernel
    kernel.assign(kernel * 1e6)
    with pytest.raises(ValueError, match="kernel of the layer 'dense' does not fit float16. Choose a"):
        tfbn.fold(model, dtype="float16")


def test_a_batch_norm_whose_folded_weights_do_not_fit_stays():
    model = chain((4,), L.Dense(3, name="dense"), tfbn.BatchNorm(name="bn"), L.ReLU())
    model.get_layer("dense").kernel.assign(np.full((4, 3), 6e4))
    assert len(tfbn.fold(model)[1].folded) == 1
    folded, report = tfbn.fold(model, dtype="float16")
    assert "the folded kernel of 'dense' is not finite in float16" in report.kept[0].reason
    assert folded.get_layer("bn").compute_dtype == "float16"


@pytest.mark.parametrize("kind", [L.Dense, L.Rescaling])
def test_what_mixed_precision_would_cast_to_infinity_stays(kind):
    # The batch norm itself computes in float32.
    keras.config.set_dtype_policy("mixed_float16")
    first = kind(4 if kind is L.Dense else 1.0, name="first")
    model = chain((4,), first, tfbn.BatchNorm(name="bn", epsilon=1e-12))
    if kind is L.Dense:
        first.set_weights([np.eye(4), np.zeros(4)])
    values = ([1.0] * 4, [0.5] * 4, [0.0] * 4, [1e-11, 1, 1, 1])
    model.get_layer("bn").set_weights([np.array(value) for value in values])
    x = 1e-6 * reference.data((5, 4))
    folded, report = tfbn.fold(model)
    assert "of 'first' is not finite in float16" in report.kept[0].reason
    assert relative_difference(folded(x), model(x)) < 1e-2
