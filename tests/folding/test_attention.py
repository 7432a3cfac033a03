"""tfbn.fold: the projections of attention take up batch norms of query, key, value and output."""

import inspect

import keras
import numpy as np
import pytest

import tfbn
from folds import bn, check, functional, weigh
from networks import FLOAT32
from tfbn.batch_norms import layer_paths

L = keras.layers
STEPS = (5, 4)
GATED = "use_gate" in inspect.signature(L.MultiHeadAttention).parameters  # not in Keras 3.8


def multi_head(**own):
    return L.MultiHeadAttention(2, 3, name="attention", **own)


def grouped(**own):
    return L.GroupQueryAttention(3, 4, 2, name="attention", **own)


# Layer, and axes of its output that are channels.
ATTENTION = {
    "MultiHeadAttention": (multi_head, -1),
    "without bias": (lambda: multi_head(use_bias=False), -1),
    "one head": (lambda: L.MultiHeadAttention(1, 3, name="attention", use_bias=False), -1),
    "values of another size": (lambda: multi_head(value_dim=5), -1),
    "another output": (lambda: multi_head(output_shape=6), -1),
    "an output of two axes": (lambda: multi_head(output_shape=(3, 2), use_bias=False), [-2, -1]),
    "GroupQueryAttention": (grouped, -1),
    "grouped without bias": (lambda: grouped(use_bias=False), -1),
}
if GATED:
    ATTENTION |= {
        "gated": (lambda: multi_head(use_gate=True), -1),
        "grouped and gated": (lambda: grouped(use_gate=True, use_bias=False), -1),
    }


def on_itself(layer, **own):
    return lambda x: layer(x, x, **own)


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", FLOAT32), ("float64", 1e-11)])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_takes_up_batch_norms(name, dtype, tolerance, offset):
    keras.config.set_dtype_policy(dtype)
    make, axis = ATTENTION[name]
    inputs, tanh = keras.Input(STEPS, dtype=dtype), L.Activation("tanh")
    data = np.random.default_rng(0).normal(size=(6, *STEPS)).astype(dtype)
    layer, before, after = make(), bn(), bn(axis=axis)
    y = tanh(after(on_itself(layer)(before(tanh(inputs)))))
    model = weigh(keras.Model(inputs, y), offset=offset)
    before.gamma.assign([0.0, -2, 1, 0.5])
    new, _ = check(model, folded=2, into=["attention"], x=data, tolerance=tolerance)
    assert new.get_layer("attention").use_bias == (layer.use_bias or offset)


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("normalized", ["query", "value", "key", "query value", "value key"])
def test_each_input(normalized, by_name):
    inputs = {
        name: keras.Input((5, size))
        for name, size in zip(("query", "value", "key"), (4, 3, 6), strict=True)
    }
    given = {name: L.Activation("tanh")(x) for name, x in inputs.items()}
    given |= {name: bn()(given[name]) for name in normalized.split()}
    layer = multi_head(use_bias=False)
    y = layer(**dict(sorted(given.items()))) if by_name else layer(*given.values())
    model = weigh(keras.Model(list(inputs.values()), y))
    check(model, folded=len(normalized.split()), into=["attention"])


def test_the_value_is_the_key_where_none_is_given():
    query, value = keras.Input((5, 4)), keras.Input((7, 3))
    y = multi_head()(query, bn()(L.Activation("tanh")(value)))
    check(weigh(keras.Model([query, value], y)), folded=1, into=["attention"])


def test_batch_norms_of_one_tensor():
    x = keras.Input(STEPS)
    tanh = L.Activation("tanh")(x)
    y = multi_head()(bn()(tanh), bn()(tanh), bn()(tanh))
    check(weigh(keras.Model(x, y)), folded=3, into=["attention"])


@pytest.mark.parametrize("kind", ["bool", "int32", "float32"])
def test_masks_of_attention(kind):
    x, mask = keras.Input(STEPS), keras.Input((5, 5), dtype=kind)
    y = multi_head()(*[bn()(L.Activation("tanh")(x))] * 2, attention_mask=mask, use_causal_mask=True)
    data = np.random.default_rng(0)
    given = [
        data.normal(size=(4, *STEPS)).astype("float32"),
        data.integers(0, 2, (4, 5, 5)).astype(kind),
    ]
    model = weigh(keras.Model([x, mask], y))
    new, report = tfbn.fold(model)
    np.testing.assert_allclose(new(given), model(given), rtol=1e-5, atol=1e-5)
    assert len(report.folded) == (kind != "float32"), str(report)


def test_what_attention_does_not_take_up():
    tanh = L.Activation("tanh")

    def model(*steps):
        return weigh(functional(STEPS, tanh, *steps))

    check(model(bn(axis=1), on_itself(multi_head())), folded=0, reason="not the channel axis 2")
    check(model(on_itself(multi_head()), bn(axis=1), tanh), folded=0, reason="not the channel axis 2")
    both = model(lambda x: on_itself(multi_head(), return_attention_scores=True)(x)[1], bn(), tanh)
    check(both, folded=0, reason="returns its scores besides")
    layer = multi_head(dropout=1e-9)  # so little that the outputs can be compared
    check(model(bn(), on_itself(layer, training=True)), folded=0, reason="drops values at random")
    inside = multi_head()
    adapted = model(bn(), on_itself(inside))
    inside.query_dense.enable_lora(2)
    check(adapted, folded=0, reason="the weights of 'query' are quantized or adapted by LoRA")


def test_scores_stay_what_they_are():
    tanh = L.Activation("tanh")
    model = functional(STEPS, tanh, bn(), on_itself(multi_head(), return_attention_scores=True))
    check(weigh(model), folded=1)


def test_attention_over_other_axes():
    layer = multi_head(attention_axes=2)
    tanh = L.Activation("tanh")
    check(weigh(functional((3, *STEPS), tanh, bn(), on_itself(layer), bn(), tanh)), folded=2)


def test_an_attention_that_is_called_twice():
    layer, tanh = multi_head(), L.Activation("tanh")
    normal = bn()
    model = functional(STEPS, tanh, normal, on_itself(layer), tanh, normal, on_itself(layer))
    check(weigh(model), folded=1)
    model = functional(STEPS, tanh, bn(), on_itself(layer), tanh, on_itself(layer))
    check(weigh(model), folded=0, reason="is shared")


def test_the_layers_inside_have_the_names_that_folding_knows():
    for make in (multi_head, grouped):
        layer = make(**{"use_gate": True} if GATED else {})
        functional(STEPS, on_itself(layer))
        dense = {path for path, part in layer_paths(layer).items() if isinstance(part, L.EinsumDense)}
        assert dense == {"query", "key", "value", "attention_output", *(["gate"] if GATED else [])}


def test_the_types_of_the_layers_inside():
    model = functional(STEPS, L.Activation("tanh"), bn(), on_itself(multi_head(use_bias=False)))
    folded, report = tfbn.fold(weigh(model), "float16")
    assert len(report.folded) == 1
    assert {weight.dtype for weight in folded.weights} == {"float16"}
