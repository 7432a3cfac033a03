"""tfbn.fold: layers that take up a batch norm of their input, and their own activations."""

import keras
import pytest

from folds import IMAGE, bn, check, functional, weigh
from propagations import POSITIVE, PURE, STRAIGHT

L = keras.layers


def convolutions():
    for rank, shape in ((1, (9, 4)), (2, IMAGE), (3, (5, 6, 5, 4))):
        yield f"Conv{rank}D", f"Conv{rank}D", {"filters": 6, "groups": 2}, shape
        yield f"Conv{rank}D dilated", f"Conv{rank}D", {"filters": 3, "dilation_rate": 2}, shape
        yield f"Conv{rank}DTranspose", f"Conv{rank}DTranspose", {"filters": 3, "strides": 2}, shape
        if rank < 3:
            yield f"DepthwiseConv{rank}D", f"DepthwiseConv{rank}D", {"depth_multiplier": 3}, shape
            arguments = {"filters": 5, "depth_multiplier": 2}
            yield f"SeparableConv{rank}D", f"SeparableConv{rank}D", arguments, shape


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("name", "kind", "arguments", "shape"), [pytest.param(*row, id=row[0]) for row in convolutions()]
)
def test_the_input_of_a_convolution(name, kind, arguments, shape, padding):
    layer = getattr(L, kind)(kernel_size=2, use_bias=name.endswith("1D"), padding=padding, **arguments)
    model = functional(shape, L.Activation("tanh"), bn(), layer, L.Activation("tanh"))
    takes = padding == "valid" and "Transpose" not in name
    reason = "pads its input" if padding == "same" else "is transposed"
    check(weigh(model), folded=int(takes), reason=None if takes else reason)
    check(weigh(model, offset=False), folded=1)


def test_a_causal_convolution_is_padded():
    model = functional((9, 4), L.Activation("tanh"), bn(), L.Conv1D(3, 2, padding="causal"))
    check(weigh(model), folded=0, reason="padding='causal'")


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_layers_own_activation(activation):
    model = functional(
        IMAGE, L.Conv2D(4, 2, activation=activation, name="conv"), bn(), L.Activation("tanh")
    )
    check(weigh(model, **STRAIGHT), folded=1, into=["conv"])
    check(weigh(model, **POSITIVE), folded=0, reason="and an offset does not pass")
    check(weigh(model, **PURE), folded=0, reason="and a negative scale does not pass")


def test_another_activation_of_a_layers_own():
    for layer in (L.Conv2D(4, 2, activation="tanh"), L.DepthwiseConv2D(2, activation="softplus")):
        model = weigh(functional(IMAGE, layer, bn()), **STRAIGHT)
        check(model, folded=0, reason="applies its own activation")


def test_a_transposed_convolution_keeps_its_output_padding():
    """Keras before 3.15 has no word of it in a configuration."""
    step = L.Conv2DTranspose(2, 2, strides=3, output_padding=1, name="conv")
    model = functional((4, 4, 3), step, bn(), L.ReLU())
    check(weigh(model), folded=1, into=["conv"])
    assert model.output_shape == (None, 12, 12, 2)
