"""tfbn.fold: moves across what has several inputs."""

import keras
import numpy as np
import pytest

import tfbn
from folds import IMAGE, bn, check, functional, weigh
from propagations import ACROSS, ANY, POSITIVE, shape_for
from tfbn.batch_norms import batch_norms
from tfbn.declared_graph import operation_class
from tfbn.folding.keras.operations import class_of, operation_rules, relu_with_arguments

L, ops = keras.layers, keras.ops


def branches(combine, *steps, axis=-1):
    """Two convolutions `a` and `b`, something behind each, put together, and a batch norm."""
    inputs = keras.Input(IMAGE)
    a, b = (L.Conv2D(4, 2, name=name)(inputs) for name in "ab")
    for tensors, after in ((a, steps[0]), (b, steps[1])):
        a, b = (after(tensors), b) if tensors is a else (a, after(tensors))
    return keras.Model(inputs, L.Activation("tanh")(bn(axis=axis)(combine([a, b]))))


PLAIN = (lambda x: x, lambda x: x)
COMBINED = {
    "Add": (L.Add, ANY),
    "x + y": (lambda: lambda x: x[0] + x[1], ANY),
    "Subtract": (L.Subtract, ANY),
    "x - y": (lambda: lambda x: x[0] - x[1], ANY),
    "Average": (L.Average, ANY),
    "Maximum": (L.Maximum, POSITIVE),
    "Minimum": (L.Minimum, POSITIVE),
    "maximum": (lambda: lambda x: keras.ops.maximum(*x), POSITIVE),
    "minimum": (lambda: lambda x: keras.ops.minimum(*x), POSITIVE),
    "Concatenate": (L.Concatenate, ANY),
    "concatenate": (lambda: lambda x: keras.ops.concatenate(x, -1), ANY),
    "Concatenate along another axis": (lambda: L.Concatenate(axis=1), ANY),
}


def test_every_operation_is_tested():
    """By the classes of the operations that the models of these tests are made of."""
    models = [functional(shape_for(name), make()) for name, (make, _) in ACROSS.items()]
    models += [branches(make(), *PLAIN) for make, _ in COMBINED.values()]
    tested = {type(operation) for model in models for operation in model.operations}
    elsewhere = {operation_class(x := keras.Input((1,)), x * x)}  # in test_products
    elsewhere |= {class_of(ops.zeros_like), class_of(ops.ones_like)}  # in test_selecting
    assert {*operation_rules(), relu_with_arguments()} - elsewhere <= tested


@pytest.mark.parametrize("name", COMBINED)
def test_into_every_branch(name):
    make, need = COMBINED[name]
    check(weigh(branches(make(), *PLAIN), **need), folded=1, into="ab")
    one_sided = branches(make(), lambda x: x, L.Activation("sigmoid"))
    check(weigh(one_sided, **need), folded=0, reason="can neither take it up")
    if need is POSITIVE:
        check(weigh(branches(make(), *PLAIN)), folded=0, reason="a negative scale does not pass")


@pytest.mark.parametrize("layer", [L.Add, L.Subtract])
@pytest.mark.parametrize("open_branch", [0, 1])
def test_the_offset_of_a_sum_goes_where_it_can(layer, open_branch):
    # A ReLU lets no offset pass, so the other branch has to take it.
    steps = [L.ReLU(), L.ReLU()]
    steps[open_branch] = lambda x: x
    check(weigh(branches(layer(), *steps), positive=True), folded=1, into="ab")
    blocked = branches(layer(), L.ReLU(), L.ReLU())
    check(weigh(blocked, positive=True), folded=0, reason="an offset does not pass")
    check(weigh(blocked, positive=True, offset=False), folded=1, into="ab")


def test_the_offset_of_sums_of_sums():
    inputs = keras.Input(IMAGE)
    a, b, c, d = (L.Conv2D(4, 2, name=name)(inputs) for name in "abcd")
    total = L.Add()([L.Add()([L.ReLU()(a), L.ReLU()(b)]), L.Add()([L.ReLU()(c), d])])
    model = keras.Model(inputs, bn()(total))
    check(weigh(model, positive=True), folded=1, into="abcd")


@pytest.mark.parametrize("combine", [L.Add, L.Concatenate])
def test_one_tensor_is_not_mapped_in_two_ways(combine):
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2)(inputs)
    model = keras.Model(inputs, bn()(combine()([x, x])))
    check(weigh(model), folded=0, reason="map one tensor in two ways")


def test_a_product_takes_the_scale_into_one_factor():
    model = branches(L.Multiply(), L.Activation("sigmoid"), lambda x: x)
    check(weigh(model, offset=False), folded=1, into="b")
    check(weigh(model), folded=0, reason="an offset does not pass 'multiply")
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2)(inputs)
    check(weigh(keras.Model(inputs, bn()(x * x)), offset=False), folded=0, reason="twice")


def test_a_product_takes_the_scale_into_the_factor_that_nothing_else_reads():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 1)(inputs)
    gate = L.Conv2D(4, 1, name="gate")(L.GlobalAveragePooling2D(keepdims=True)(x))
    model = keras.Model(inputs, bn()(L.Multiply()([x, gate])))
    check(weigh(model, offset=False), folded=1, into=["gate"])


def test_a_gate_is_no_branch_that_varies_along_the_image():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 1, name="x")(inputs)
    gate = L.Conv2D(1, 1, name="gate")(inputs)
    model = keras.Model(inputs, bn()(L.Multiply()([gate, x])))
    check(weigh(model, offset=False), folded=1, into=["x"])
    model = keras.Model(inputs, bn()(L.Add()([gate, x])))
    check(weigh(model, offset=False), folded=0, reason="one of the tensors before it does not have")


def test_forwards_through_what_combines():
    def model(combine, **need):
        inputs = keras.Input(IMAGE)
        x = bn()(L.Activation("tanh")(inputs))
        return weigh(keras.Model(inputs, L.Conv2D(3, 2, name="conv")(combine(x, inputs))), **need)

    pool = L.AveragePooling2D(3, strides=1, padding="same")
    check(model(lambda x, _: L.Add()([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Subtract()([x, 3 * pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Average()([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Maximum()([x, pool(x)]), positive=True), folded=1, into=["conv"])
    check(model(lambda x, _: L.Maximum()([x, pool(x)])), folded=0, reason="a negative scale")
    shifted = model(lambda x, _: L.Maximum()([x, x + 1.0]), positive=True)
    check(shifted, folded=0, reason="it would offset some inputs of 'maximum")
    check(model(lambda x, y: L.Concatenate()([y, x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, y: L.Concatenate(axis=2)([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, y: L.Concatenate(axis=2)([y, x])), folded=0, reason="not the channel axis")
    check(model(lambda x, y: L.Multiply()([x, y]), offset=False), folded=1, into=["conv"])
    check(model(lambda x, y: L.Multiply()([x, pool(x)]), offset=False), folded=1, into=["conv"])
    check(model(lambda x, y: L.Multiply()([x, y])), folded=0, reason="an offset does not pass")
    check(model(lambda x, y: L.Add()([x, y])), folded=0, reason="some inputs of 'add")
    check(model(lambda x, y: L.Average()([x, y])), folded=0, reason="some inputs of 'average")
    offset_only = model(lambda x, y: L.Add()([x, y]))
    (layer,) = batch_norms(offset_only).values()
    layer.gamma.assign(np.sqrt(np.float64(layer.moving_variance) + layer.epsilon))
    # gamma is rounded, and then the scale is not 1 and stays.
    assert len(tfbn.fold(offset_only)[1].kept) == 1
    layer.moving_variance.assign([0.99] * 4)  # 0.99 + 1e-2 is 1 only in float32
    layer.epsilon = 1 - float(layer.moving_variance[0])
    layer.gamma.assign([1.0] * 4)
    check(offset_only, folded=1, into=["conv"])
