"""tfbn.fold: recurrent layers take up the batch norm of their input, Embedding that of its output."""

import keras
import numpy as np
import pytest

import tfbn
from folds import bn, check, functional, weigh

L = keras.layers
STEPS = (5, 4)
RECURRENT = {
    "SimpleRNN": L.SimpleRNN,
    "LSTM": L.LSTM,
    "GRU": L.GRU,
    "GRU before its reset": lambda *given, **own: L.GRU(*given, reset_after=False, **own),
}


@pytest.mark.parametrize("own", [{}, {"return_sequences": True, "go_backwards": True}])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_takes_up_the_batch_norm_of_its_input(name, offset, bias, own):
    layer = RECURRENT[name](3, use_bias=bias, name="recurrent", **own)
    model = weigh(functional(STEPS, L.Activation("tanh"), bn(), layer), offset=offset)
    folded, _ = check(model, folded=1, into=["recurrent"])
    assert folded.layers[-1].use_bias == (bias or offset)


@pytest.mark.parametrize("name", RECURRENT)
def test_its_weights(name):
    """By hand: the kernel's rows are scaled, and what it makes of the offsets is in the input's bias."""
    model = weigh(functional(STEPS, L.Activation("tanh"), bn(), RECURRENT[name](3)))
    before = {weight.name: np.float64(weight) for weight in model.layers[-1].weights}
    layer = model.layers[-2]
    scale = np.float64(layer.gamma) / np.sqrt(np.float64(layer.moving_variance) + layer.epsilon)
    offset = np.float64(layer.beta) - scale * np.float64(layer.moving_mean)
    after = {weight.name: np.float64(weight) for weight in tfbn.fold(model)[0].layers[-1].weights}
    np.testing.assert_array_equal(after["recurrent_kernel"], before["recurrent_kernel"])
    want = before["bias"] + (offset @ before["kernel"] if before["bias"].ndim == 1 else 0)
    if before["bias"].ndim == 2:
        want[0] += offset @ before["kernel"]
    np.testing.assert_allclose(after["kernel"], scale[:, None] * before["kernel"], rtol=1e-6)
    np.testing.assert_allclose(after["bias"], want, rtol=1e-5, atol=1e-6)


def test_a_sequence_in_layers():
    steps = (
        L.Dense(4, name="dense"),
        bn(),
        L.LSTM(6, return_sequences=True, name="lstm"),
        bn(),
        L.GRU(3, name="gru"),
    )
    _, report = check(weigh(functional(STEPS, *steps)), folded=2)
    assert [entry.into[0] for entry in report.entries] == ["dense", "gru"]


def test_what_a_recurrent_layer_does_not_take_up():
    tanh = L.Activation("tanh")
    model = weigh(functional(STEPS, L.LSTM(4), bn(), tanh))
    check(model, folded=0, reason="feeds its output back to itself")
    model = weigh(functional(STEPS, tanh, bn(axis=1), L.LSTM(4)))
    check(model, folded=0, reason="which is not the channel axis 2 of 'lstm")
    lstm = L.LSTM(4, dropout=1e-9)  # so little that the outputs can be compared
    model = weigh(functional(STEPS, tanh, bn(), lambda x: lstm(x, training=True)))
    check(model, folded=0, reason="drops values at random")


@pytest.mark.parametrize("normalized", ["sequence", "state", "both"])
def test_initial_states(normalized):
    sequence, state = keras.Input(STEPS), keras.Input((4,))
    x, first = L.Activation("tanh")(sequence), L.Activation("sigmoid")(state)
    if normalized != "state":
        x = bn()(x)
    if normalized != "sequence":
        first = bn()(first)
    y = L.GRU(4, name="gru")(x, initial_state=first)
    model = weigh(keras.Model([sequence, state], y))
    if normalized == "state":
        check(model, folded=0, reason="take it up for its first input alone")
    else:
        check(model, folded=1, into=["gru"])


@pytest.mark.parametrize("kind", [L.LSTM, L.GRU, L.SimpleRNN])
def test_a_state_keeps_the_batch_norm(kind):
    inputs = keras.Input(batch_shape=(2, *STEPS))
    model = weigh(keras.Model(inputs, kind(3, stateful=True, name="rnn")(bn()(inputs))))
    _, report = tfbn.fold(model)
    assert "'rnn' is stateful, and its state would be lost" in report.kept[0].reason


def test_a_mask_keeps_the_batch_norm():
    model = functional(STEPS, L.Masking(), bn(), L.LSTM(3))
    check(weigh(model), folded=0, reason="with a mask")


TOKENS = np.array([[0, 6, 2], [5, 5, 1], [3, 4, 0]])


def embedded(*steps, **own):
    return weigh(functional((3,), L.Embedding(7, 4, name="table", **own), *steps))


def test_an_embedding_takes_up_the_batch_norm_of_its_output():
    check(embedded(bn(), L.Activation("tanh")), folded=1, into=["table"], x=TOKENS)
    averaged = embedded(L.GlobalAveragePooling1D(), bn(), L.Activation("tanh"))
    check(averaged, folded=1, into=["table"], x=TOKENS)
    model = embedded(bn(axis=1), L.Activation("tanh"))
    check(model, folded=0, reason="not the channel axis 2", x=TOKENS)
    masked = embedded(bn(), L.LSTM(3), mask_zero=True)
    check(masked, folded=0, reason="is called with a mask", x=TOKENS)


def test_the_table():
    model = embedded(bn(), L.Activation("tanh"))
    folded = tfbn.fold(model, "bfloat16")[0]
    (table,), (before,) = folded.layers[1].get_weights(), model.layers[1].get_weights()
    layer = model.layers[2]
    scale = np.float64(layer.gamma) / np.sqrt(np.float64(layer.moving_variance) + layer.epsilon)
    want = scale * (np.float64(before) - np.float64(layer.moving_mean)) + np.float64(layer.beta)
    np.testing.assert_allclose(np.float64(table), want, rtol=2**-8)


def test_an_embedding_that_something_else_reads():
    tokens = keras.Input((3,))
    table = L.Embedding(9, 4)
    model = keras.Model(tokens, [bn()(table(tokens)), L.Dense(2)(table(tokens + 1.0))])
    check(weigh(model), folded=0, reason="'embedding", x=TOKENS)
    rows = L.Embedding(7, 4)(0.0 * bn()(L.Activation("tanh")(tokens)))
    check(weigh(keras.Model(tokens, rows)), folded=0, reason="as numbers of rows", x=TOKENS)
