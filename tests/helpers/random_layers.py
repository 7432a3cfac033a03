"""Custom layers around random layers: chains of them, on one tensor or on two."""

import keras

from tfbn.batch_norms import AnyBatchNorm, batch_norms, layer_paths

L = keras.layers


class Chain(L.Layer):
    """Calls layers and functions, which keep the shape, one after the other. It cannot be copied.

    Args:
        parts: those layers and functions.
        tells: whether it passes `training` on, or leaves that to Keras.
    """

    def __init__(self, parts, tells, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(parts)
        self.tells = tells

    def build(self, shape):
        for part in self.parts:
            if isinstance(part, L.Layer) and not part.built:
                part.build(shape)

    def call(self, inputs, training=None):
        x = inputs
        for part in self.parts:
            told = self.tells and isinstance(part, (Chain, AnyBatchNorm))
            x = part(x, training=training) if told else part(x)
        return x


class Copied:
    """What makes a chain of layers alone from its configuration."""

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return {**L.Layer.get_config(self), "parts": parts, "tells": self.tells}

    @classmethod
    def from_config(cls, config):
        parts = [keras.saving.deserialize_keras_object(part) for part in config["parts"]]
        return cls(**{**config, "parts": parts})


class SumChain(Chain):
    """A chain on the sum of two tensors in a list."""

    def build(self, shapes):
        super().build(shapes[0])

    def call(self, inputs, training=None):
        return super().call(inputs[0] + inputs[1], training)


class NamedSumChain(Chain):
    """A chain whose result a second tensor, given by name, is added to."""

    def build(self, inputs_shape, other_shape):
        super().build(inputs_shape)

    def call(self, inputs, other=None, training=None):
        return super().call(inputs, training) + other


class WeightedChain(Chain):
    """A chain with a weight of its own, for which it stays whole."""

    def build(self, shape):
        super().build(shape)
        self.factor = self.add_weight(shape=(), name="factor")

    def call(self, inputs, training=None):
        return super().call(inputs, training) * self.factor


@keras.saving.register_keras_serializable("tests")
class CopiedChain(Copied, Chain):
    pass


@keras.saving.register_keras_serializable("tests")
class CopiedSumChain(Copied, SumChain):
    pass


@keras.saving.register_keras_serializable("tests")
class CopiedWeightedChain(Copied, WeightedChain):
    pass


# What can be opened, by the number of tensors; and what cannot.
ON_ONE, ON_TWO = [Chain, CopiedChain], [SumChain, NamedSumChain, CopiedSumChain]
CLOSED = [WeightedChain, CopiedWeightedChain]  # copies of these would share no layers with others


def chain(kind, parts, tells, same_names):
    """A chain of a class among the above; functions among the parts become layers if it is copied.

    Args:
        same_names: whether all its layers have one name.
    """
    if issubclass(kind, Copied):
        parts = [part if isinstance(part, L.Layer) else L.Activation("relu") for part in parts]
    for part in parts:
        if same_names and isinstance(part, L.Layer) and not part.built:
            part.name = "part"
    return kind(parts, tells)


def batch_norms_in_chains(model):
    """The batch norms, by path, that are inside chains."""
    chains = [layer for layer in layer_paths(model).values() if isinstance(layer, Chain)]
    inside = {id(layer) for chain in chains for layer in batch_norms(chain).values()}
    return {path: layer for path, layer in batch_norms(model).items() if id(layer) in inside}
