"""tfbn.fold: EinsumDense, whose kernel and bias may count any of its axes."""

import keras
import pytest

from folds import alike, bn, check, functional, weigh

L = keras.layers

EINSUMS = {
    "abc,cd->abd": ({"output_shape": (None, 6), "bias_axes": "d"}, -1),
    "abc,cd->abd without bias": ({"output_shape": (None, 6)}, -1),
    "...c,cd->...d": ({"output_shape": 6, "bias_axes": "d"}, -1),
    "abc,cde->abde": ({"output_shape": (None, 2, 3), "bias_axes": "e"}, -1),
    "abc,cde->abde along d": ({"output_shape": (None, 2, 3), "bias_axes": "e"}, 2),
    "abc,bcd->abd": ({"output_shape": (9, 6)}, 1),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_einsum_dense(name):
    arguments, axis = EINSUMS[name]
    make = lambda: L.EinsumDense(name.split(" ")[0], **arguments)  # noqa: E731
    backwards = functional((9, 4), make(), bn(axis=axis), L.Activation("tanh"))
    check(weigh(backwards), folded=1)
    check(alike(backwards, "gamma", "beta", "moving_mean", "moving_variance"), folded=1)
    forwards = functional((9, 4), L.Activation("tanh"), bn(axis=min(axis, 2) % 3), make())
    folds = 1 if "bcd" in name or axis != 1 else 0
    check(weigh(forwards), folded=folds)
    new, _ = check(weigh(forwards, offset=False), folded=folds)
    assert (new.layers[-1].bias is None) == ("bias_axes" not in arguments)


def test_what_einsum_dense_refuses():
    layer = lambda: L.EinsumDense("abc,cd->abd", output_shape=(9, 6))  # noqa: E731
    model = functional((9, 4), layer(), bn(axis=1), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="normalise one that it has")
    summed = L.EinsumDense("abc,cd->ad", output_shape=6)
    model = functional((9, 4), L.Activation("tanh"), bn(), summed)
    check(weigh(model), folded=0, reason="sums over b")
    check(weigh(model, offset=False), folded=1)
    behind = functional(
        (9, 4), L.EinsumDense("abc,cd->abd", output_shape=(9, 6), activation="tanh"), bn()
    )
    check(weigh(behind), folded=0, reason="applies its own activation (tanh)")


def test_an_einsum_dense_whose_last_axes_have_no_letters():
    layer = L.EinsumDense("ab...,bc->ac...", output_shape=5)
    model = functional((9, 4), layer, bn(axis=1), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="have no letters")


@pytest.mark.parametrize(("equation", "shape"), [("ab,bb->ab", (4,)), ("abb,bc->ac", (4, 4))])
def test_an_einsum_dense_of_a_diagonal(equation, shape):
    diagonal = L.EinsumDense(equation, output_shape=4)
    model = functional(shape, L.Activation("tanh"), bn(), diagonal, bn(), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="takes a diagonal")


def test_an_equation_that_ends_in_a_space():
    layer = L.EinsumDense("abc,cd->abd ", output_shape=(9, 6))
    check(weigh(functional((9, 4), layer, bn(), L.Activation("tanh"))), folded=1)


def test_a_kernel_whose_axes_are_in_another_order():
    layer = L.EinsumDense("abc,cbd->ad", output_shape=6)
    check(weigh(functional((9, 4), L.Activation("tanh"), bn(axis=[1, 2]), layer)), folded=1)
    layer = L.EinsumDense("ab,bdc->acd", output_shape=(3, 5))
    check(weigh(functional((4,), layer, bn(axis=[1, 2]), L.Activation("tanh"))), folded=1)


def test_an_offset_may_vary_where_the_kernel_does_not():
    def model(*steps):
        return alike(weigh(functional((9, 4), *steps)), "gamma", "moving_variance")

    def layer(equation="abc,cd->abd", size=9):
        return L.EinsumDense(equation, output_shape=6 if "." in equation else (size, 6))

    tanh = L.Activation("tanh")
    check(model(layer(), bn(axis=1), tanh), folded=1)
    check(model(tanh, bn(axis=1), layer()), folded=1)
    check(model(tanh, bn(axis=1), layer(size=None)), folded=0, reason="a size that it does not know")
    check(model(layer("...c,cd->...d"), bn(axis=1), tanh), folded=0, reason="normalise one that it has")
    check(model(tanh, bn(), L.EinsumDense("abc,bcd->ad", output_shape=6)), folded=1)


def test_a_single_output():
    tanh = L.Activation("tanh")
    channel = functional((9, 4), L.EinsumDense("abc,cd->abd", output_shape=(9, 1)), bn(), tanh)
    check(weigh(channel), folded=1)
    biased = L.EinsumDense("ab,bc->ac", output_shape=1, bias_axes="c")
    model = weigh(functional((4,), biased, bn(), tanh), offset=False)
    biased.bias.assign([0.0])
    check(model, folded=1)
    number = lambda: L.EinsumDense("ab,b->a", output_shape=())  # noqa: E731
    for steps in ((tanh, bn(), number()), (number(), L.Reshape((1,)), bn(), tanh)):
        model = functional((4,), *steps)
        check(weigh(model), folded=0, reason="a size that it does not know")
        check(weigh(model, offset=False), folded=1)
    inputs = keras.Input(batch_shape=(5, 4))  # of which another size may follow all the same
    model = keras.Model(inputs, bn()(L.Reshape((1,))(number()(inputs))))
    check(weigh(model), folded=0, reason="a size that it does not know")


def test_lora_weights_of_an_einsum_dense_are_left_alone():
    layer = L.EinsumDense("ab,bc->ac", output_shape=4)
    model = functional((4,), L.Activation("tanh"), bn(), layer, bn(), L.Activation("tanh"))
    layer.enable_lora(2)
    check(weigh(model), folded=0, reason="adapted by LoRA")
