"""tfbn.fold: EinsumDense, whose kernel and bias may count any of its axes."""

import keras
import pytest

from folds import bn, check, functional, weigh

pytestmark = pytest.mark.slow

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
    forwards = functional((9, 4), L.Activation("tanh"), bn(axis=min(axis, 2) % 3), make())
    check(weigh(forwards), folded=1 if "bcd" in name or axis != 1 else 0)


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


def test_an_einsum_dense_of_a_diagonal():
    diagonal = lambda: L.EinsumDense("ab,bb->ab", output_shape=4)  # noqa: E731
    model = functional((4,), L.Activation("tanh"), bn(), diagonal(), bn(), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="takes a diagonal")
