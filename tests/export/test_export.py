"""tfbn.export: a SavedModel that is the model, or nothing at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from exports import everything, wrong_fold
from networks import chain, randomize, relative_difference
from tfbn.export import checks
from tfbn.export.formats.savedmodel import SavedModel

L = keras.layers

# Of models with random statistics, on samples of any kind.
pytestmark = [
    pytest.mark.both,
    pytest.mark.filterwarnings("ignore:The inputs of these batch norms are far"),
]


@pytest.mark.parametrize("fold", [True, False])
def test_the_exported_model_serves_alone_with_any_batch_size(model, fold, tmp_path, unchanged, serve):
    with unchanged(model):
        report = tfbn.export(model, tmp_path / "deep" / "er" / "model", fold=fold)
    assert report.path == tmp_path / "deep" / "er" / "model"
    assert report.inputs == {"x": ((None, 8, 8, 3), "float32")}
    assert report.outputs == {"output_0": ((None, 2), "float32")}
    assert report.samples == 4
    assert 0 <= report.relative_difference < 1e-5
    assert [len(report.fold.folded), len(report.fold.kept)] == [1, 0] if fold else report.fold is None
    x = reference.data((5, 8, 8, 3))
    got = serve(report.path, x=x)["output_0"]
    assert relative_difference(got, model(x)) < 1e-5
    signature = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    for size in (1, 3):
        np.testing.assert_allclose(signature(x=tf.constant(x[:size]))["output_0"], got[:size], rtol=1e-5)
    assert str(report).startswith(f"SavedModel {report.path}\n  differs from the model by at most ")


def test_several_inputs_and_outputs_keep_their_names(tmp_path, serve):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), dtype="int32", name="the b")
    outputs = {"one": tfbn.BatchNorm()(L.Dense(2)(a)), "two": L.Embedding(2, 3)(b)}
    model = randomize(keras.Model([a, b], outputs))
    report = tfbn.export(model, tmp_path / "m")
    assert report.inputs == {"a": ((None, 4), "float32"), "the_b": ((None, 3), "int32")}
    assert report.outputs.keys() == {"one", "two"}
    data = [reference.data((3, 4)), np.array([[0, 1, 1]] * 3, "int32")]
    got = serve(tmp_path / "m", a=data[0], the_b=data[1])
    for name, want in model(data).items():
        assert relative_difference(got[name], want) < 1e-5


def test_nested_outputs_are_named_by_their_path(tmp_path, serve):
    inputs = keras.Input((4,), name="x")
    x = L.Dense(2)(inputs)
    model = keras.Model(inputs, [x, (x * 2, {"y": L.Dense(3)(x)})])
    report = tfbn.export(model, tmp_path / "m")
    assert report.outputs.keys() == {"output_0", "output_1_0", "output_1_1_y"}
    data = reference.data((3, 4))
    got = serve(tmp_path / "m", x=data)
    assert relative_difference(got["output_1_1_y"], model(data)[1][1]["y"]) < 1e-6
    report = tfbn.export(keras.Model(inputs, {"y": [x, x * 2]}), tmp_path / "n")
    assert report.outputs.keys() == {"y_0", "y_1"}


def test_samples_as_numpy_makes_them(model, tmp_path):
    x = reference.data((2, 8, 8, 3), dtype="float64")
    for number, samples in enumerate((x, x.round().astype(int), x.tolist(), tf.constant(x))):
        assert tfbn.export(model, tmp_path / str(number), samples=samples).samples == 2


def test_keras_prints_nothing_of_the_path_on_the_way(model, tmp_path, capsys):
    assert keras.config.is_interactive_logging_enabled()
    tfbn.export(model, tmp_path / "m")
    assert capsys.readouterr().out == ""
    assert keras.config.is_interactive_logging_enabled()


def test_a_model_that_does_not_take_one_sample_is_refused(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.reshape(inputs, (-1, 2, 4)))
    with pytest.raises(ValueError, match=r"(?s)does not run .* on any batch size, one included"):
        tfbn.export(model, tmp_path / "m")
    assert everything(tmp_path) == {}


def test_a_small_output_of_the_one_sample_is_no_failure(tmp_path):
    # Rounding is relative to the outputs of the whole batch, not to a single one that happens to be 0.
    model = chain((64,), L.Dense(64), tfbn.BatchNorm(), L.Dense(1))
    x = reference.data((8, 64))
    model.layers[-1].bias.assign(-model(x[:1])[0] + model.layers[-1].bias)
    report = tfbn.export(model, tmp_path / "m", samples=x)
    assert report.relative_difference < 1e-5


def test_strings_and_complex_numbers_are_compared(tmp_path):
    inputs = keras.Input((2,), dtype="int32", name="x")
    words = L.StringLookup(vocabulary=["a", "b"], invert=True)(inputs)
    assert tfbn.export(keras.Model(inputs, words), tmp_path / "m").difference == 0
    imaginary = {"o": np.array([1 + 5j])}, {"o": np.array([1 + 0j])}
    with pytest.raises(tfbn.ExportError, match="differs from the model's by 5,"):
        checks.check_close(*imaginary, {"o": 1.0}, 0, 1e-5, SavedModel())
    strings = {"o": np.array([b"a"], object)}, {"o": np.array([b"b"], object)}
    with pytest.raises(tfbn.ExportError, match="'s o differs"):
        checks.check_close(*strings, {"o": 0.0}, 0, 1e-5, SavedModel())


def test_mixed_precision_has_its_own_tolerance(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = chain((8, 8, 3), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU())
    assert 1e-5 < tfbn.export(model, tmp_path / "m").relative_difference < 1e-2


@pytest.mark.parametrize("fold", [True, False])
def test_subclassed_models_are_exported_with_samples(fold, tmp_path, serve):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [L.Dense(3), tfbn.BatchNorm()]

        def build(self, shape):
            for part in self.parts:
                part.build((*shape[:-1], 4 if part is self.parts[0] else 3))

        def call(self, x, training=None):
            return self.parts[1](self.parts[0](x), training=training)

    model, x = Subclassed(), reference.data((5, 4))
    model(x)
    with pytest.raises(ValueError, match=r"\(Subclassed\) are not declared, .* Pass samples="):
        tfbn.export(model, tmp_path / "m", fold=fold)
    report = tfbn.export(model, tmp_path / "m", fold=fold, samples=x)
    assert not fold or len(report.fold.folded) == 1
    got = serve(tmp_path / "m", inputs=x)["output_0"]
    assert report.samples == 5
    assert relative_difference(got, model(x)) < 1e-6


class Opaque(keras.Model):
    """A call of its own around a model that folds."""

    def __init__(self, inner, **arguments):
        super().__init__(**arguments)
        self.inner = inner

    def call(self, x):
        return tf.identity(self.inner(x)) + 1.0  # which takes no symbolic tensor of Keras


@pytest.mark.parametrize("outermost", [True, False])
def test_models_that_cannot_be_opened_are_folded_in_their_graph(outermost, tmp_path, unchanged, serve):
    inner = chain((4,), L.Dense(3), tfbn.BatchNorm(), L.Dense(2))
    assert tfbn.fold(inner)[1].folded
    x, model = reference.data((5, 4)), Opaque(inner)
    model(x)
    if not outermost:
        inputs = keras.Input((4,), name="inputs")
        model = randomize(keras.Model(inputs, model(tfbn.BatchNorm()(L.Dense(4)(inputs)))))
    with unchanged(inner):
        # The model around it folds, and has it as it is; what is inside is folded in the graph.
        report = tfbn.export(model, tmp_path / "folded", samples=x)
        assert len(report.fold.folded) == 2 - outermost
        assert len(report.fold.shared) == (not outermost)
        got = serve(tmp_path / "folded", inputs=x)["output_0"]
        assert relative_difference(got, model(x)) < 1e-5
        assert tfbn.export(model, tmp_path / "m", fold=False, samples=x, freeze=False).fold is None
    saved = tf.saved_model.load(str(tmp_path / "m")).variables
    values = [
        sorted(variable.numpy().ravel().tolist() for variable in some)
        for some in (saved, model.variables)
    ]
    assert values[0] == values[1]
    assert relative_difference(serve(tmp_path / "m", inputs=x)["output_0"], model(x)) < 1e-6


def test_a_difference_above_the_tolerance_is_an_error_with_the_numbers(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", wrong_fold)
    message = (
        r"output_0 differs from the model's by \S+, with values up to .* atol=0, rtol=1e-05\. Nothing"
    )
    with pytest.raises(tfbn.ExportError, match=message):
        tfbn.export(model, tmp_path / "m")
    assert tfbn.export(model, tmp_path / "m", atol=1e3).difference > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"samples": np.ones((2, 8, 8, 4), "float32")},
            r"^samples for x have the shape \(2, 8, 8, 4\), and the model takes \(None, 8, 8, 3\)\.",
        ),
        (
            {"samples": np.ones((8, 8, 3), "float32")},
            r"That is one sample, not a batch: give it an axis, x\[numpy\.newaxis\]\.",
        ),
        (
            {"samples": (np.ones((2, 8, 8, 3), "float32"), np.ones(2))},
            r"a tuple of 2 arrays, and the model takes one input\. Of \(x, y\) pass x alone\.",
        ),
        (
            {"samples": np.ones((0, 8, 8, 3), "float32")},
            r"at least one, received 0 for x\. Pass a small",
        ),
        (
            {"samples": np.full((2, 8, 8, 3), np.nan)},
            r"output_0 is NaN or infinite on .*\. The samples hold NaN or infinity themselves: pass oth",
        ),
    ],
)
def test_samples_that_prove_nothing_are_refused(model, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tfbn.export(model, tmp_path / "m", **arguments)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    "structure", [list, tuple, lambda tensors: {"a": tensors[0], "b b": tensors[1]}]
)
def test_samples_in_the_structure_of_the_model_or_by_name(structure, tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b b")
    model = keras.Model(structure([a, b]), L.Concatenate()([a, b]))
    x = reference.data((5, 3)), reference.data((5, 2))
    for samples in (structure(x), {"b_b": x[1], "a": x[0]}):
        assert tfbn.export(model, tmp_path / "m", overwrite=True, samples=samples).samples == 5
    for wrong, message in (
        (structure([x[0], x[1][:2]]), "received 5 for a, 2 for b_b"),
        ([*x, x[0]], "received a list of 3 where a .* A dict of arrays named a, b_b will do"),
        ({"a": x[0]}, "received a dict of a where"),
        (x[0], "received an array where"),
    ):
        with pytest.raises(ValueError, match=f"^samples .*{message}"):
            tfbn.export(model, tmp_path / "m", overwrite=True, samples=wrong)


def test_outputs_that_hardly_vary_prove_little(tmp_path):
    layer = L.Dense(2, kernel_initializer=keras.initializers.Constant(1e-6), bias_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), layer])
    report = tfbn.export(model, tmp_path / "m")
    assert 0 < report.spread < 1e-4
    assert "the outputs hardly vary among the samples" in str(report)
    report = tfbn.export(model, tmp_path / "m", overwrite=True, samples=1e6 * reference.data((5, 3)))
    assert report.spread > 0.1
    assert "outputs hardly" not in str(report)
    scalar = keras.Model(model.inputs, keras.ops.sum(model.outputs[0]))
    assert tfbn.export(scalar, tmp_path / "s").spread is None
    report = tfbn.export(model, tmp_path / "m", overwrite=True, samples=np.ones((1, 3)))
    assert report.spread is None
    assert "outputs hardly" not in str(report)


def test_arguments_that_make_no_sense_are_refused_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", None)
    for arguments, error, message in (
        ({"rtol": -1}, ValueError, "atol and rtol must be 0 or more, received 0.0 and -1"),
        ({"atol": np.nan}, ValueError, "atol and rtol must be 0 or more"),
        ({"freeze": "no"}, TypeError, "freeze must be True, False or None, received 'no'"),
    ):
        with pytest.raises(error, match=message):
            tfbn.export(model, tmp_path / "m", **arguments)
    inputs = keras.Input((5, 4), batch_size=1)
    stateful = keras.Model(inputs, L.LSTM(3, stateful=True, name="lstm")(inputs))
    with pytest.raises(ValueError, match=r"'lstm' \(LSTM\) is stateful, .* Make it with stateful=False"):
        tfbn.export(stateful, tmp_path / "m")
    with pytest.raises(
        ValueError, match=r"^A SavedModel is a folder, received .*m\.h5\. export writes S"
    ):
        tfbn.export(model, tmp_path / "m.h5")


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(TypeError, match="^export needs a keras.Model, received int: 3"):
        tfbn.export(3, tmp_path / "m")
    with pytest.raises(ValueError, match="is not built, so it has no weights to export"):
        tfbn.export(keras.Sequential([L.Dense(2)]), tmp_path / "m")
    words = keras.Sequential([keras.Input((1,), dtype="string"), L.StringLookup(vocabulary=["a"])])
    with pytest.raises(ValueError, match="No samples can be drawn for the input .* of type string"):
        tfbn.export(words, tmp_path / "m")
    report = tfbn.export(words, tmp_path / "m", samples=np.array([["a"], ["z"]]))
    assert report.difference == 0
