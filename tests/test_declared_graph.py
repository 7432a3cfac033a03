"""What models declare of themselves."""

import keras

from tfbn.declared_graph import declares_inputs, given_name, has_readable_graph, input_like

L = keras.layers


def test_which_graphs_are_readable():
    class Opaque(keras.Model):
        def call(self, x):
            return x

    class Named(keras.Model):
        def train_step(self, data):
            raise NotImplementedError

    inputs = keras.Input((4,))
    outputs = L.Dense(2)(inputs)
    assert has_readable_graph(keras.Model(inputs, outputs))
    assert has_readable_graph(Named(inputs, outputs))
    assert has_readable_graph(keras.Sequential([inputs, L.Dense(2)]))
    assert not has_readable_graph(keras.Sequential([L.Dense(2)]))
    assert not has_readable_graph(Opaque(inputs, outputs))
    assert not has_readable_graph(L.Dense(2))


def test_which_models_declare_inputs():
    class Own(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            return -super().call(inputs, training=training)

    inputs = keras.Input((4,))
    assert declares_inputs(Own([inputs, L.Dense(2)]))
    assert not declares_inputs(Own([L.Dense(2)]))
    assert not declares_inputs(keras.Model())


def test_names_that_inputs_were_given():
    assert given_name(keras.Input((4,), name="image")) == "image"
    assert given_name(keras.Input((4,))) is None
    inputs = keras.Input((4,), name="image", dtype="int32")
    model = keras.Model(inputs, L.Dense(2)(inputs))
    like = input_like(model, model.input)
    assert (like.name, like.shape, like.dtype) == ("image", (None, 4), "int32")
