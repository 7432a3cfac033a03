"""Which calls of a mode 0 layer are a second data flow, and which are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
from tfbn.compat import BatchNormalization
from tfbn.compat.keras1.data_flow import same_flow

L = keras.layers


def test_keras_still_tells_how_a_tensor_was_made():
    # The private API of compat/keras1/data_flow.py.
    x = keras.Input((3,))
    layer = L.ReLU()
    layer(x)
    made = layer(x)
    assert made._keras_history[0] is layer
    assert made._keras_history[1:] == (1, 0)
    assert layer._inbound_nodes[1].input_tensors[0] is x
    assert x._keras_history[0]._inbound_nodes[0].input_tensors == []


def siamese(bn):
    first, second = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    dense = L.Dense(3)
    return bn(dense(first)), bn(dense(second))


def twice_through_a_layer(bn):
    x, dense = keras.Input((4,)), L.Dense(4)
    return bn(dense(x)), bn(dense(dense(x)))


def two_outputs_of_a_layer(bn):
    _, *states = L.LSTM(4, return_state=True)(keras.Input((3, 4)))
    return bn(states[0]), bn(states[1])


def sums_of_two_and_three(bn):
    x, add = keras.Input((4,)), L.Add()
    return bn(add([x, x])), bn(add([x, x, x]))


def input_by_name(bn):
    return bn(keras.Input((4,))), bn(inputs=keras.Input((4,)))


FLOWS = [siamese, twice_through_a_layer, two_outputs_of_a_layer, sums_of_two_and_three, input_by_name]


@pytest.mark.parametrize("build", FLOWS)
def test_a_second_data_flow_is_refused(build):
    bn = BatchNormalization(name="bn")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        build(bn)
    message = str(caught.value)
    first = repr(bn.input)
    assert message.startswith(
        "You are attempting to share the BatchNormalization layer 'bn' across different data flows: it "
        f"was called on {first} and is now called on <KerasTensor"
    )
    assert message.endswith(
        ". With mode=0 its running statistics describe one flow. Use mode=2, which normalises each "
        "batch by its own statistics and is shareable, or a layer for each flow."
    )
    assert bn.output.shape[-1] == bn.input.shape[-1]  # still the first call, and usable
    keras.Model(bn.input, bn.output)(np.ones((2, bn.input.shape[-1])))


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("build", FLOWS)
def test_modes_1_and_2_may_be_shared(build, mode):
    first, second = build(BatchNormalization(mode=mode, name="bn"))
    assert first is not second


def test_a_shared_layer_of_mode_2_uses_each_batch_by_itself():
    bn, inputs = BatchNormalization(mode=2), [keras.Input((3,)), keras.Input((3,))]
    model = keras.Model(inputs, [bn(tensor) for tensor in inputs])
    batches = [reference.data((8, 3), seed=seed) for seed in (1, 2)]
    for training in (True, False):
        for y, x in zip(model(batches, training=training), batches, strict=True):
            want = reference.apply(x, *reference.moments(x), epsilon=1e-5)
            np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(bn.running_mean, [0, 0, 0])
    np.testing.assert_array_equal(bn.running_std, [1, 1, 1])


def test_the_same_tensor_again_is_the_same_flow():
    bn, x = BatchNormalization(), keras.Input((4,))
    assert keras.Model(x, [bn(x), bn(x)])(np.ones((2, 4)))


def test_a_sequential_model_being_put_together_is_one_flow():
    bn = BatchNormalization()
    model = keras.Sequential([keras.Input((4,))])
    for layer in (L.Dense(3), keras.Sequential([L.Dense(5), L.ReLU()]), bn, L.Dense(2), L.ReLU()):
        model.add(layer)
    model.pop()
    model.add(BatchNormalization())
    assert model.output_shape == (None, 2)
    late = keras.Sequential([L.Dense(3), bn := BatchNormalization()])  # its input is not known yet
    late.build((None, 4))
    late.add(L.Dense(2))
    assert late(np.ones((2, 4))).shape == (2, 2)
    assert bn.built


def test_a_model_around_it_may_be_called_nested_cloned_and_saved(tmp_path):
    x = keras.Input((4,))
    base = keras.Model(x, BatchNormalization()(L.Dense(3)(x)))
    for _ in range(2):  # a nested model shares its layers, as any model does
        new = keras.Input((4,))
        keras.Model(new, L.Dense(1)(base(new)))
    sequential = keras.Sequential([base, BatchNormalization()])
    sequential(keras.Input((4,)))
    for model in (base, sequential):
        keras.models.clone_model(model)(np.ones((2, 4)))
        model.save(tmp_path / "m.keras")
        keras.models.load_model(tmp_path / "m.keras")(np.ones((2, 4)))
        keras.models.model_from_json(model.to_json())
        keras.Model(model.inputs, model.layers[-1].output)


def test_values_are_not_watched():
    bn = BatchNormalization()
    traced = tf.function(bn)
    for size in (2, 3, 5):
        x = reference.data((size, 4))
        bn(x, training=True)
        traced(x, training=True)
        traced(tf.constant(x))
    keras.Model(x := keras.Input((4,)), bn(x)).predict(np.ones((2, 4)), verbose=0)


def test_wide_graphs_are_compared_in_a_moment():
    # 2 ** 60 ways lead from the input to the output.
    x, layers = keras.Input((4,)), [L.Add() for _ in range(60)]

    def through(y):
        for layer in layers:
            y = layer([y, y])
        return y

    assert same_flow(through(x), through(x))
    assert not same_flow(through(x), through(keras.Input((4,))))
