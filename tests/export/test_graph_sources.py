"""tfbn.export of what is no Keras model: each kind of source, and what is refused."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from exports import everything, operations
from frozen_graphs import BATCH_NORMS, Parts
from networks import relative_difference
from tfbn.folding.graphdef import write

C = 4
IMAGE = (6, 5, C)
SPEC = tf.TensorSpec((None, *IMAGE), "float32", "image")
L = keras.layers


def network(seed=0):
    """A convolution, a batch norm and a Relu, with variables."""
    parts = Parts("float32", seed=seed)
    kernel, bias = tf.Variable(parts.normal(3, 3, C, 6)), tf.Variable(parts.normal(6))
    statistics = [tf.Variable(parts.normal(6)), tf.Variable(tf.exp(parts.normal(6)))]
    gamma = tf.Variable(parts.scale(6))

    def apply(x):
        x = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
        made = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=bias, mean=statistics[0], variance=statistics[1], is_training=False
        )
        return tf.reduce_mean(tf.nn.relu(made.y), (1, 2))

    apply.variables = [kernel, bias, *statistics, gamma]
    return apply


class Net(tf.Module):
    """A function and its variables."""

    def __init__(self, seed=0):
        super().__init__()
        self.apply = network(seed)
        self.all = self.apply.variables

    @tf.function(input_signature=[SPEC])
    def __call__(self, image):
        return {"scores": self.apply(image)}


def check(report, path, want, serve, folded=1, **inputs):
    assert len(report.fold.folded) == folded, str(report.fold)
    assert report.relative_difference < 1e-5
    assert not BATCH_NORMS & set(operations(path))
    got = serve(path, **inputs)
    for name, array in want.items():
        assert relative_difference(got[name], array) < 1e-5


@pytest.mark.parametrize("kind", ["module", "method", "function", "concrete", "SavedModel"])
def test_each_kind_of_source(kind, tmp_path, serve):
    net, x = Net(), reference.data((3, *IMAGE))
    want = net(x)
    tf.saved_model.save(net, str(tmp_path / "given"), signatures=net.__call__)
    if kind == "function":
        source = tf.function(lambda image: {"scores": net.apply(image)}, input_signature=[SPEC])
    else:
        source = {
            "module": net,
            "method": net.__call__,
            "concrete": net.__call__.get_concrete_function(),
            "SavedModel": str(tmp_path / "given"),
        }[kind]
    before = [variable.numpy() for variable in net.all]
    report = tfbn.export(source, tmp_path / "out")
    check(report, tmp_path / "out", want, serve, image=x)
    assert report.inputs == {"image": ((None, *IMAGE), "float32")}
    assert report.outputs == {"scores": ((None, 6), "float32")}
    assert report.samples == 4
    for old, variable in zip(before, net.all, strict=True):
        np.testing.assert_array_equal(old, variable)


def test_arguments_and_outputs_of_any_structure(tmp_path, serve):
    net = network()

    @tf.function
    def function(pair, more, scale=2.0):
        first, second = pair
        return [net(first) * scale, {"sum": net(second) + more["x"]}]

    spec = tf.TensorSpec((None, *IMAGE))
    concrete = function.get_concrete_function((spec, spec), {"x": tf.TensorSpec((None, 6))})
    report = tfbn.export(concrete, tmp_path / "out")
    assert len(report.inputs) == 3
    assert report.outputs.keys() == {"output_0", "output_1_sum"}
    x, more = reference.data((2, *IMAGE)), reference.data((2, 6))
    signature = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    given = dict(zip(("pair_0", "pair_1", "more_x"), (x, x + 1, more), strict=True))
    got = signature(**{name: tf.constant(array) for name, array in given.items()})
    want = concrete((x, x + 1), {"x": tf.constant(more)}, 2.0)
    assert relative_difference(got["output_1_sum"], want[1]["sum"]) < 1e-5
    assert relative_difference(got["output_0"], want[0]) < 1e-5


class Words(Net):
    """A vocabulary in a file, and two signatures."""

    def __init__(self, vocabulary):
        super().__init__()
        kind = tf.lookup.TextFileInitializer
        self.table = tf.lookup.StaticHashTable(
            kind(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        self.names = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.range(6, dtype="int64"), list("abcdef")), "?"
        )
        self.embedding = tf.Variable(Parts("float32").normal(5, 6, 5, C))

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "words")])
    def look_up(self, words):
        found = tf.gather(self.embedding, self.table.lookup(words) + 1)
        scores = self.apply(tf.reshape(found, (-1, *IMAGE)))  # of a loaded table nobody knows the rank
        return {"scores": scores, "best": self.names.lookup(tf.argmax(scores, -1))}


@pytest.fixture
def words(tmp_path):
    (tmp_path / "vocabulary.txt").write_text("one\ntwo\nthree\n")
    return Words(tmp_path / "vocabulary.txt")


GIVEN = np.array(["two", "four", "one"])


@pytest.mark.parametrize("freeze", [None, False, True])
def test_tables_files_and_strings_go_along(freeze, words, tmp_path, serve):
    """Also from a SavedModel, which is gone afterwards, with several signatures on the same weights."""
    want = words.look_up(tf.constant(GIVEN))
    signatures = {"serving_default": words.__call__, "words": words.look_up}
    tf.saved_model.save(words, str(tmp_path / "given"), signatures=signatures)
    samples = {"words": {"words": GIVEN}}
    report = tfbn.export(tmp_path / "given", tmp_path / "out", freeze=freeze, samples=samples)
    assert len(report.fold.folded) == 1, str(report.fold)
    shutil.rmtree(tmp_path / "given")
    (tmp_path / "vocabulary.txt").unlink()
    assert [path.name for path in (tmp_path / "out/assets").iterdir()] == ["vocabulary.txt"]
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert loaded.signatures.keys() == signatures.keys()
    got = loaded.signatures["words"](words=tf.constant(GIVEN))
    assert relative_difference(got["scores"], want["scores"]) < 1e-5
    np.testing.assert_array_equal(got["best"], want["best"])
    x = reference.data((3, *IMAGE))
    assert relative_difference(serve(tmp_path / "out", image=x)["scores"], words(x)["scores"]) < 1e-5
    for signature in loaded.signatures.values():
        assert not signature.trainable_variables
    assert bool(loaded.signatures["words"].variables) == (freeze is False)
    assert not BATCH_NORMS & set(operations(tmp_path / "out"))


def test_signatures_share_their_variables(tmp_path):
    parts = Parts("float32")
    module = tf.Module()
    module.kernel = tf.Variable(parts.normal(40, 40))

    @tf.function(input_signature=[tf.TensorSpec((None, 40), name="x")])
    def first(x):
        return {"y": x @ module.kernel}

    @tf.function(input_signature=[tf.TensorSpec((None, 40), name="x")])
    def second(x):
        return {"y": tf.tanh(x @ module.kernel)}

    given = tmp_path / "given"
    tf.saved_model.save(module, str(given), signatures={"first": first, "second": second})
    report = tfbn.export(given, tmp_path / "out", freeze=False)
    assert report.reason_for_variables == "freeze=False"
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    variables = [signature.variables for signature in loaded.signatures.values()]
    assert [len(own) for own in variables] == [1, 1]
    assert variables[0][0] is variables[1][0] or variables[0][0].name == variables[1][0].name
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert size < 2 * 40 * 40 * 4 + 20_000
    assert not loaded.signatures["first"].trainable_variables
    x = reference.data((2, 40))
    assert relative_difference(loaded.signatures["second"](x=tf.constant(x))["y"], second(x)["y"]) < 1e-5


REFUSED = {
    "py_function": ("calls Python code .*PyFunc", lambda x: tf.py_function(tf.tanh, [x], "float32")),
    "numpy_function": (
        "calls Python code .*PyFunc",
        lambda x: tf.numpy_function(np.tanh, [x], "float32"),
    ),
    "random": ("random", lambda x: x + tf.random.normal(tf.shape(x))),
    "infinite": ("not finite|NaN or infinite", lambda x: tf.math.log(x - 100)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_are_refused(name, tmp_path):
    message, function = REFUSED[name]
    spec = tf.TensorSpec((None, 3), name="x")
    (tmp_path / "out").mkdir()
    tf.saved_model.save(Net(), str(tmp_path / "out"))
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=message):
        tfbn.export(tf.function(function, input_signature=[spec]), tmp_path / "out", overwrite=True)
    assert everything(tmp_path) == before


def test_functions_that_write_to_variables_are_refused(tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            super().__init__()
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
        def __call__(self, x):
            return x + self.count.assign_add(0.0)

    with pytest.raises(ValueError, match="writes to variables .*AssignAddVariableOp"):
        tfbn.export(Counting(), tmp_path / "out")
    generator = tf.random.Generator.from_seed(1)
    draw = tf.function(
        lambda x: x + generator.normal(tf.shape(x)) * 0, input_signature=[tf.TensorSpec((None, 3))]
    )
    with pytest.raises(ValueError, match="writes to variables|cannot be made constants"):
        tfbn.export(draw, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_sources_that_say_nothing(tmp_path):
    net = Net()
    tf.saved_model.save(net, str(tmp_path / "none"), signatures={})
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.keras").write_bytes(b"PK")
    wrong = [
        (tmp_path / "none", "has no signatures"),
        (tmp_path / "empty", "Load it first"),
        (tmp_path / "absent", "where there is nothing"),
        (tmp_path / "a.keras", r"keras\.models\.load_model"),
        (tf.Module(), "has no tf.functions"),
        (tf.function(lambda x: x), "does not say what it takes"),
    ]
    for source, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            tfbn.export(source, tmp_path / "out")
    for source in (net, tmp_path / "none"):
        with pytest.raises(ValueError, match="name tensors of a frozen graph"):
            tfbn.export(source, tmp_path / "out", inputs=["x"])
    with pytest.raises(ValueError, match="input_names= is for Keras models"):
        tfbn.export(net, tmp_path / "out", input_names=["x"])
    assert not (tmp_path / "out").exists()


def test_a_module_with_several_functions(tmp_path):
    net = Net()
    net.other = tf.function(net.apply, input_signature=[SPEC])
    tfbn.export(net, tmp_path / "out")  # __call__ is the one
    module = tf.Module()
    module.one, module.two = net.other, tf.function(net.apply, input_signature=[SPEC])
    with pytest.raises(ValueError, match=r"2 tf.functions \(one and two\)|2 tf.functions \(one, two\)"):
        tfbn.export(module, tmp_path / "two")


def test_strings_need_samples(words, tmp_path):
    with pytest.raises(ValueError, match="No samples can be drawn for the input 'words'"):
        tfbn.export(words.look_up, tmp_path / "out")
    with pytest.raises(ValueError, match="tables that no object holds"):
        tfbn.export(words.look_up, tmp_path / "out", samples=GIVEN)
    assert not (tmp_path / "out").exists()


def test_samples_for_signatures_that_are_not_there(tmp_path):
    net = Net()
    for samples in (
        {"other": {"image": reference.data((2, *IMAGE))}},
        {"other": reference.data((2, *IMAGE))},
    ):
        with pytest.raises(ValueError, match="other|takes image"):
            tfbn.export(net, tmp_path / "out", samples=samples)
    for samples in (reference.data((2, 3)), np.array(["a"]), [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="samples|convert|inhomogeneous"):
            tfbn.export(net, tmp_path / "out", samples=samples)
    assert not (tmp_path / "out").exists()


def test_a_saved_model_in_its_own_place(tmp_path, serve):
    net, x = Net(), reference.data((3, *IMAGE))
    tf.saved_model.save(net, str(tmp_path / "own"), signatures=net.__call__)
    with pytest.raises(FileExistsError):
        tfbn.export(tmp_path / "own", tmp_path / "own")
    report = tfbn.export(tmp_path / "own", tmp_path / "own", overwrite=True)
    check(report, tmp_path / "own", net(x), serve, image=x)
    again = tfbn.export(tmp_path / "own", tmp_path / "own", overwrite=True)
    assert not again.fold.entries


def test_ragged_inputs(tmp_path):
    """Flat values and row lengths are inputs of their own in signatures; drawn, they do not fit."""
    spec = tf.RaggedTensorSpec((None, None), tf.float32, 1)
    function = tf.function(lambda x: tf.reduce_sum(x, 1), input_signature=[spec])
    with pytest.raises(ValueError, match="samples"):
        tfbn.export(function, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_a_function_encloses_are_folded(tmp_path, serve):
    """As tensors, too large for TensorFlow to make constants of them itself."""
    parts = Parts("float32")
    kernel, scale, offset = parts.normal(1, 1, C, 200), parts.scale(200), parts.normal(200)

    @tf.function(input_signature=[SPEC])
    def function(image):
        return {"y": tf.tanh(tf.nn.conv2d(image, kernel, 1, "SAME") * scale + offset)}

    x = reference.data((2, *IMAGE))
    report = tfbn.export(function, tmp_path / "out")
    check(report, tmp_path / "out", function(x), serve, image=x)


def test_wrong_folding_is_noticed(monkeypatch, tmp_path):
    written = write._written
    monkeypatch.setattr(
        write, "_written", lambda *given: setattr(made := written(*given), "bias", made.bias + 1) or made
    )
    with pytest.raises(tfbn.ExportError, match="differs from the model's"):
        tfbn.export(Net(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


class Bags(tf.Module):
    """Of each row of words the mean of their embeddings, through a product and a batch norm."""

    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(0).normal
        self.table, self.kernel = tf.Variable(draw(size=(10, 4))), tf.Variable(draw(size=(4, 3)))
        self.scale, self.offset = tf.Variable(draw(size=3)), tf.Variable(draw(size=3))

    @tf.function(input_signature=[tf.RaggedTensorSpec((None, None), tf.int64)])
    def __call__(self, words):
        found = tf.ragged.map_flat_values(tf.nn.embedding_lookup, self.table, words)
        means = tf.reduce_mean(found, 1)
        return {"y": tf.matmul(means, self.kernel) * self.scale + self.offset, "n": words.row_lengths()}


def test_ragged_inputs_are_their_parts(tmp_path, serve):
    module, words = Bags(), tf.ragged.constant([[1, 2], [3], [4, 5, 6]], dtype=tf.int64)
    parts = {"inputs_0": words.values.numpy(), "inputs_1": words.row_splits.numpy()}
    report = tfbn.export(module, tmp_path / "out", samples=parts)
    assert len(report.fold.folded) == 1
    got, want = serve(tmp_path / "out", **parts), module(words)
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-11)
    np.testing.assert_array_equal(got["n"], [2, 1, 3])
    with pytest.raises(ValueError, match="does not run on the sample inputs. Pass samples="):
        tfbn.export(module, tmp_path / "drawn")
