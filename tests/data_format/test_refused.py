"""Models that cannot be turned to channels last, or not run here, refused before anything is made."""

import keras
import pytest
import tensorflow as tf

import tfbn
from tfbn.data_format import check_kernels, support
from turning import FIRST, arguments_of, by_xla, chain, conv, samples, sequential

L = keras.layers


class Mine(L.Layer):
    """A layer of the user's own around a channels-first convolution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(3, 2, name="inside", **FIRST)

    def call(self, x):
        return self.conv(x)


class Sub(L.Conv2D):
    """A subclass, which may do something else."""


def shared():
    layer = L.ReLU(name="shared")
    inputs = keras.Input((3, 6, 5))
    x = layer(conv()(inputs))
    return keras.Model(inputs, layer(L.Conv1D(2, 2, **FIRST)(L.Reshape((4, 30))(x))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: chain((3, 6, 5), Mine(name="mine")),
            r"'mine/inside' \(Conv2D\) would stay channels first",
        ),
        (lambda: chain((3, 6, 5), Sub(2, 2, name="sub", **FIRST)), r"'sub' \(Sub\) would stay"),
        (
            lambda: chain((2, 3, 6, 5), L.ConvLSTM2D(2, 2, activation="softmax", name="lstm", **FIRST)),
            r"'lstm' \(ConvLSTM2D\) cannot be made channels last: its activation may depend on",
        ),
        (
            shared,
            "'shared' cannot be made channels last, because it is called on tensors of several ranks",
        ),
    ],
    ids=["inside", "subclass", "softmax in a cell", "several ranks"],
)
def test_what_cannot_be_turned_is_named(make, message, unchanged):
    model = make()
    with unchanged(model), pytest.raises(ValueError, match=message):
        tfbn.convert(model, data_format="channels_last")


def test_a_bias_that_keras_adds_elsewhere_is_refused(monkeypatch, tmp_path):
    """As wide as it has channels: turned, the model would not predict what it does."""
    model = chain((3, 5, 4), conv(4, name="square"))
    tfbn.convert(model, data_format="channels_last")  # its bias is 0
    model.get_layer("square").bias.assign([1, 2, 3, 4])
    x = samples(model)
    wrong = by_xla(model, x) - by_xla(
        keras.Model(model.inputs[0], conv(4, use_bias=False)(model.inputs[0])), x
    )
    assert wrong.shape == (3, 4, 5, 4)
    with pytest.raises(ValueError, match="the outputs of 'square' are as long along the last axis"):
        tfbn.convert(model, data_format="channels_last")
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: True)
    with pytest.raises(
        ValueError, match="The outputs of 'square' are as long along the last axis.*in some"
    ):
        tfbn.export(model, tmp_path / "out")


@pytest.mark.parametrize("wrong", ["channels_first", "NHWC", 1])
def test_other_formats_are_refused(wrong):
    with pytest.raises(ValueError, match=f"'channels_last' or None, received {wrong!r}"):
        tfbn.convert(sequential(), data_format=wrong)


class OwnCode(keras.Model):
    """A subclassed model, which convert does not take."""

    def __init__(self):
        super().__init__()
        self.conv = conv()

    def build(self, shape):
        self.conv.build(shape)
        self.built = True

    def call(self, x):
        return self.conv(x)


def test_a_model_that_cannot_run_here_is_refused_at_the_entry(monkeypatch, tmp_path, unchanged):
    """On this machine, or on one without the kernels."""
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    model = sequential()
    message = (
        r"The model runs 'conv', 'max_pooling2d\S*', 'conv2d\S*' channels first, for which TensorFlow "
        r"has no kernel on this machine's CPU without oneDNN\. Make the model channels last with "
        r"tfbn\.convert\(model, data_format='channels_last'\), or set the environment variable "
        r"TF_ENABLE_ONEDNN_OPTS=1 before"
    )
    x = samples(model)
    for refused in (
        lambda: tfbn.export(model, tmp_path / "out"),
        lambda: tfbn.recalibrate(model, x),
        lambda: tfbn.population_statistics(model, x),
    ):
        with unchanged(model), pytest.raises(RuntimeError, match=message):
            refused()
    assert not list(tmp_path.iterdir())
    check_kernels(tfbn.convert(model, data_format="channels_last"))
    opaque = OwnCode()
    opaque.build((None, 3, 6, 5))
    with pytest.raises(RuntimeError, match=r"oneDNN\. Make the layers channels last in the code of the"):
        check_kernels(opaque)
    double = chain((3, 6, 5), conv(dtype="float64"))
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: dtype != "float64")
    with pytest.raises(
        RuntimeError, match=r"CPU\. Make the model channels last with \S+ data_format=\S+\)\.$"
    ):
        check_kernels(double)


@pytest.mark.parametrize("kind", support.RANKS, ids=lambda kind: kind.__name__)
def test_whether_there_is_a_kernel_is_told_by_running_it(kind):
    rank = support.RANKS[kind]
    arguments, _ = arguments_of(kind)
    x = tf.ones([1, 2, 6, 5, 4][:rank] if "LSTM" not in kind.__name__ else [1, 2, 2, 6, 5, 4][:rank])
    layer = kind(**arguments | FIRST)
    if support.has_kernel(kind, "float32"):
        layer(x)
    else:
        with pytest.raises(tf.errors.OpError):
            layer(x)


def test_a_function_of_tensorflow_that_cannot_run_here_is_told(tmp_path):
    """Inside a layer of the user's own, where it cannot be seen before it runs."""

    class Own(L.Layer):
        def call(self, x):
            raise tf.errors.UnimplementedError(
                None, None, "The Conv2D op currently only supports the NHWC tensor format on the CPU."
            )

        def compute_output_shape(self, shape):
            return shape

    with pytest.raises(
        RuntimeError,
        match="The model runs a function of TensorFlow channels first.*Make it channels last in its",
    ):
        tfbn.export(chain((3, 6, 5), Own()), tmp_path / "out", fold=False)


def test_a_bias_that_keras_adds_elsewhere_at_each_step_is_refused():
    inputs = keras.Input((2, 3, 5, 4))
    model = keras.Model(inputs, L.TimeDistributed(conv(4), name="square")(inputs))
    model.get_layer("square").layer.bias.assign([1, 2, 3, 4])
    with pytest.raises(ValueError, match="the outputs of 'square' are as long along the last axis"):
        tfbn.convert(model, data_format="channels_last")


def test_what_a_layer_of_ones_own_raises_is_told():
    class Own(L.Layer):
        def call(self, x):
            return x

        def get_config(self):
            raise KeyError("units")

    with pytest.raises(ValueError, match=r"'own' \(Own\) cannot be copied.*'units'"):
        tfbn.convert(chain((3, 5, 6), conv(), Own(name="own")), data_format="channels_last")


class ByHand(L.Conv2D):
    """A subclass that runs everywhere."""

    def call(self, x):
        turned = tf.nn.conv2d(tf.transpose(x, (0, 2, 3, 1)), self.kernel, 1, "SAME")
        return tf.transpose(turned, (0, 3, 1, 2))


def test_a_subclass_that_does_it_otherwise_is_not_refused(monkeypatch):
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    check_kernels(chain((3, 5, 6), ByHand(2, 3, padding="same", **FIRST)))
