"""tfbn.fold: across the borders of nested models."""

import keras

import reference
from folds import IMAGE, bn, check, functional, weigh
from networks import FLOAT32, relative_difference

L = keras.layers


def nested(steps, name):
    inner = keras.Sequential([keras.Input(IMAGE), *steps], name=name)
    return inner


def test_across_the_border_of_a_nested_model():
    alone = lambda: nested([bn(name="bn")], "inner")  # noqa: E731
    check(
        weigh(functional(IMAGE, L.Conv2D(4, 1, name="conv"), alone(), L.ReLU())), folded=1, into=["conv"]
    )
    check(
        weigh(functional(IMAGE, L.ReLU(), alone(), L.Conv2D(4, 1, name="conv"))), folded=1, into=["conv"]
    )
    within = nested([L.Conv2D(4, 1, name="conv"), L.Dropout(0.5)], "inner")
    check(weigh(functional(IMAGE, within, bn())), folded=1, into=["inner/conv"])
    inputs = keras.Input(IMAGE)
    as_it_is = keras.Model(inputs, bn()(inputs), name="functional")
    check(weigh(functional(IMAGE, L.Conv2D(4, 1, name="conv"), as_it_is)), folded=1, into=["conv"])


def test_a_nested_model_called_twice():
    inner = nested([L.Conv2D(4, 1, name="conv"), bn(name="inside"), L.ReLU()], "inner")
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, bn(name="outside")(L.Add()([inner(inputs), inner(inner(inputs))])))
    check(weigh(model), folded=1, into=["inner/conv"], reason="does not pass")
    linear = nested([L.Conv2D(4, 1, name="conv")], "inner")
    check(weigh(functional(IMAGE, linear, linear, bn())), folded=0, reason="'conv' is shared")
    shared = bn(name="bn")
    check(weigh(functional(IMAGE, linear, shared, linear, shared)), folded=1, into=["inner/conv"])


def test_nested_models_with_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    for structure in ([a, b], {"a": a, "b": b}, (b, a)):
        outputs = [L.Dense(5, name="first")(a), bn(name="inside")(b)]
        inner = keras.Model(structure, outputs, name="inner")
        x, y = keras.Input((4,)), keras.Input((4,))
        given = {"a": L.Dense(4, name="x")(x), "b": L.Dense(4, name="y")(y)}
        listed = [given[tensor.name] for tensor in keras.tree.flatten(structure)]
        first, two = inner(keras.tree.pack_sequence_as(structure, listed))
        model = keras.Model([x, y], [bn(name="outside")(first), two])
        check(weigh(model), folded=2, into=["inner/first", "y"])


def test_outputs_of_a_nested_model_by_name():
    a = keras.Input((4,))
    outputs = {"y": L.Dense(5, name="first")(a), "x": L.Activation("tanh")(a)}
    inner = keras.Model(a, outputs, name="inner")
    x = keras.Input((4,))
    named = inner(x)
    model = keras.Model(x, {"p": bn()(named["y"]), "b": named["x"]})
    check(weigh(model), folded=1, into=["inner/first"])


def test_an_output_of_a_nested_model_that_nothing_reads_stays_what_it_is():
    a = keras.Input((4,))
    inner = keras.Model(a, [L.Dense(5)(a), bn(name="idle")(L.Activation("tanh")(a))], name="inner")
    x = keras.Input((4,))
    model = weigh(keras.Model(x, inner(x)[0]))
    new, _ = check(model, folded=0, reason="its result is an output of the model")
    data = reference.data((5, 4))
    got, want = (network.get_layer("inner")(data)[1] for network in (new, model))
    assert relative_difference(got, want) < FLOAT32


def test_inputs_matched_by_name_are_not_followed():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model([a, b], [L.Dense(5)(a), bn(name="inside")(b)], name="inner")
    x, y = keras.Input((4,)), keras.Input((4,))
    outputs = inner({"b": L.Dense(4, name="y")(y), "a": L.Dense(4, name="x")(x)})
    model = keras.Model([x, y], outputs)
    check(weigh(model), folded=0, reason="it normalises an input of the model")
    inner = keras.Model([a, b], [bn()(L.Dense(5, name="first")(a)), b], name="inner")
    model = keras.Model([x, y], inner({"b": L.Dense(4, name="y")(y), "a": x}))
    check(weigh(model), folded=1, into=["inner/first"])
