"""tfbn.fold: recurrent layers take up the batch norm of their input, Embedding that of its output."""

import keras
import numpy as np
import pytest

import tfbn
from folds import bn, check, functional, weigh
from sweeps import thinned
from tfbn.batch_norms import layer_paths

L = keras.layers
STEPS = (5, 4)
RECURRENT = {
    "SimpleRNN": L.SimpleRNN,
    "LSTM": L.LSTM,
    "GRU": L.GRU,
    "GRU before its reset": lambda *given, **own: L.GRU(*given, reset_after=False, **own),
}


def of_cells(*cells):
    """A layer of cells, which have the bias, and the layer all else."""
    return lambda units, use_bias=True, name=None, **own: L.RNN(
        [cell(units, use_bias=use_bias) for cell in cells]
        if cells[1:]
        else cells[0](units, use_bias=use_bias),
        name=name,
        **own,
    )


def both_ways(kind, merge="concat", back=None):
    def make(units, use_bias=True, name=None, return_sequences=False, go_backwards=False):
        there = kind(units, use_bias=use_bias, return_sequences=return_sequences)
        again = back and back(units, return_sequences=return_sequences, go_backwards=True)
        return L.Bidirectional(there, merge_mode=merge, backward_layer=again, name=name)

    return make


COMPOSED = {
    "RNN of an LSTMCell": of_cells(L.LSTMCell),
    "RNN of a GRUCell": of_cells(L.GRUCell),
    "RNN of a SimpleRNNCell": of_cells(L.SimpleRNNCell),
    "stacked cells": of_cells(L.GRUCell, L.LSTMCell),
    "LSTM both ways": both_ways(L.LSTM),
    "GRU both ways": both_ways(L.GRU, "sum"),
    "SimpleRNN both ways": both_ways(L.SimpleRNN, "mul"),
    "another layer backwards": both_ways(L.GRU, "ave", back=L.LSTM),
    "stacked cells both ways": both_ways(of_cells(L.SimpleRNNCell, L.GRUCell)),
}
ALL = RECURRENT | COMPOSED
BACKWARDS = {"return_sequences": True, "go_backwards": True}


@pytest.mark.parametrize(
    ("own", "bias", "offset", "name"),
    thinned(2, [{}, BACKWARDS], [True, False], [True, False], ALL),
)
def test_a_recurrent_layer_takes_up_the_batch_norm_of_its_input(name, offset, bias, own):
    layer = ALL[name](3, use_bias=bias, name="recurrent", **own)
    model = weigh(functional(STEPS, L.Activation("tanh"), bn(), layer), offset=offset)
    folded, _ = check(model, folded=1, into=["recurrent"])
    before, after = len(layer.weights), len(folded.layers[-1].weights)
    cells = 2 if "both ways" in name or "backwards" in name else 1
    own_bias = bias or not offset
    assert after == before + (0 if own_bias else 1 if "another" in name else cells)


@pytest.mark.parametrize("name", ALL)
def test_a_recurrent_layer_in_float64(name):
    keras.config.set_dtype_policy("float64")
    inputs = keras.Input(STEPS, dtype="float64")
    layer = ALL[name](3, use_bias=False)
    model = weigh(keras.Model(inputs, layer(bn()(L.Activation("tanh")(inputs)))))
    model.layers[-2].gamma.assign([0.0, -2, 1, 0.5])
    check(model, folded=1, x=np.random.default_rng(0).normal(size=(4, *STEPS)), tolerance=1e-11)


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


@pytest.mark.parametrize("normalized", ["sequence", "state"])
def test_initial_states_by_name(normalized):
    """Whose names are in another order than the arguments."""
    sequence, state = keras.Input(STEPS), keras.Input((4,))
    tanh = L.Activation("tanh")
    given = {"sequences": tanh(sequence), "initial_state": tanh(state)}
    name = "sequences" if normalized == "sequence" else "initial_state"
    model = weigh(keras.Model([sequence, state], L.GRU(4)(**given | {name: bn()(given[name])})))
    check(model, folded=int(normalized == "sequence"))


@pytest.mark.parametrize("kind", [L.LSTM, L.GRU, L.SimpleRNN])
def test_a_state_keeps_the_batch_norm(kind):
    inputs = keras.Input(batch_shape=(2, *STEPS))
    model = weigh(keras.Model(inputs, kind(3, stateful=True, name="rnn")(bn()(inputs))))
    _, report = tfbn.fold(model)
    assert "'rnn' is stateful, and its state would be lost" in report.kept[0].reason


TOKENS = np.array([[0, 6, 2], [5, 5, 1], [3, 4, 0]])


def embedded(*steps, **own):
    return weigh(functional((3,), L.Embedding(7, 4, name="table", **own), *steps))


def test_an_embedding_takes_up_the_batch_norm_of_its_output():
    check(embedded(bn(), L.Activation("tanh")), folded=1, into=["table"], x=TOKENS)
    averaged = embedded(L.GlobalAveragePooling1D(), bn(), L.Activation("tanh"))
    check(averaged, folded=1, into=["table"], x=TOKENS)
    model = embedded(bn(axis=1), L.Activation("tanh"))
    check(model, folded=0, reason="not the channel axis 2", x=TOKENS)


def test_the_table():
    model = embedded(bn(), L.Activation("tanh"))
    folded = tfbn.fold(model, "bfloat16")[0]
    (table,), (before,) = folded.layers[1].get_weights(), model.layers[1].get_weights()
    layer = model.layers[2]
    scale = np.float64(layer.gamma) / np.sqrt(np.float64(layer.moving_variance) + layer.epsilon)
    want = scale * (np.float64(before) - np.float64(layer.moving_mean)) + np.float64(layer.beta)
    np.testing.assert_allclose(np.float64(table), want, rtol=2**-8)


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
def test_the_precision_of_cells(dtype):
    model = functional(STEPS, L.Activation("tanh"), bn(), COMPOSED["LSTM both ways"](3, use_bias=False))
    folded, report = tfbn.fold(weigh(model), dtype)
    assert len(report.folded) == 1
    assert {layer.dtype_policy.name for layer in layer_paths(folded.layers[-1]).values()} == {dtype}


@pytest.mark.parametrize("around", [L.RNN, lambda cell: L.RNN([cell, L.GRUCell(2)])])
def test_a_cell_of_the_user(around):
    class Slow(L.SimpleRNNCell):
        def call(self, sequence, states, training=False):
            return super().call(sequence / 2, states, training=training)

    with keras.saving.custom_object_scope({"Slow": Slow}):
        for layer in (around(Slow(3)), L.Bidirectional(around(Slow(3)))):
            model = weigh(functional(STEPS, L.Activation("tanh"), bn(), layer))
            check(model, folded=0, reason="has a cell of its own (Slow)")


def test_an_activation_of_the_user_inside():
    """Keras cannot read it again, so that no other layer can be made."""

    def half(x):
        return x / 2

    layer = L.RNN(L.SimpleRNNCell(3, activation=half))
    model = weigh(functional(STEPS, L.Activation("tanh"), bn(), layer))
    assert "cannot be made anew" in tfbn.fold(model)[1].kept[0].reason


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_drawn_for_what_is_written_over(name, monkeypatch):
    layer = ALL[name](3)
    model = weigh(functional(STEPS, L.Activation("tanh"), bn(), layer))
    for kind in (keras.initializers.Orthogonal, keras.initializers.GlorotUniform):
        monkeypatch.setattr(kind, "__call__", None)
    tfbn.fold(model)


def test_an_embedding_that_something_else_reads():
    tokens = keras.Input((3,))
    table = L.Embedding(9, 4)
    model = keras.Model(tokens, [bn()(table(tokens)), L.Dense(2)(table(tokens + 1.0))])
    check(weigh(model), folded=0, reason="'embedding", x=TOKENS)
    rows = L.Embedding(7, 4)(0.0 * bn()(L.Activation("tanh")(tokens)))
    check(weigh(keras.Model(tokens, rows)), folded=0, reason="as numbers of rows", x=TOKENS)
