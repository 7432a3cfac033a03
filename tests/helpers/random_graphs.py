"""Random graphs of convolutions, batch norms and what stands between them."""

import keras
import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st

import tfbn
from networks import randomize
from random_layers import CLOSED, ON_ONE, ON_TWO, NamedSumChain, chain
from tfbn.batch_norms import batch_norms

L, ops = keras.layers, keras.ops
CHANNELS = 4


def drawn(examples, shard):
    """Make a property see so many graphs: the same ones in each run, and others in each shard."""
    same = settings(
        max_examples=examples,
        phases=[Phase.generate],  # shrinking takes a hundred times as long
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda run: seed(shard)(same(run))


class Builder:
    """Draws a graph: each step takes tensors drawn before, all of one shape, and makes another.

    Args:
        data: what hypothesis draws from.
        first: whether channels come first.
        custom: whether pieces of the graph may be in custom layers.
    """

    def __init__(self, data, first, custom=False):
        self.data = data
        self.custom = custom
        self.format = {"data_format": "channels_first" if first else "channels_last"}
        self.axis = 1 if first else -1
        shape = (CHANNELS, 6, 5) if first else (6, 5, CHANNELS)
        self.inputs = keras.Input(shape)
        self.tensors = [self.inputs]
        self.layers = []  # that may be called again

    def pick(self, options):
        return self.data.draw(st.sampled_from(options))

    def tensor(self):
        """Rather a new one than an old one."""
        return self.tensors[-1 - self.data.draw(st.integers(0, min(3, len(self.tensors) - 1)))]

    def batch_norm(self):
        kind = self.pick([tfbn.BatchNorm, L.BatchNormalization])
        center, scale = self.pick([(True, True), (False, True), (True, False)])
        layer = kind(axis=self.axis, center=center, scale=scale)
        layer.positive, layer.straight = self.pick([True, False]), self.pick([True, False])
        return layer

    def linear(self):
        own = self.format
        bias = {"use_bias": self.pick([True, False])}
        return self.pick(
            [
                lambda: L.Conv2D(CHANNELS, 1, **bias, **own),
                lambda: L.Conv2D(CHANNELS, 3, padding="same", groups=2, **bias, **own),
                lambda: L.Conv2D(CHANNELS, 1, activation="relu", **bias, **own),
                lambda: L.DepthwiseConv2D(1, **bias, **own),
                lambda: L.SeparableConv2D(CHANNELS, 1, depth_multiplier=2, **bias, **own),
                lambda: L.Conv2DTranspose(CHANNELS, 3, padding="same", **bias, **own),
            ]
        )()

    def crossed(self):
        same = {"strides": 1, "padding": "same", **self.format}
        return self.pick(
            [
                L.ReLU,
                L.LeakyReLU,
                lambda: L.Dropout(0.5),
                lambda: L.MaxPooling2D(3, **same),
                lambda: L.MaxPooling2D(3, **same),
                lambda: L.AveragePooling2D(3, **same),
                lambda: lambda x: ops.average_pool(x, 3, **same),
                lambda: lambda x: keras.activations.leaky_relu(x, 0.3),
                lambda: ops.negative,
                lambda: L.Activation("linear"),
                lambda: L.Activation("tanh"),
            ]
        )()

    def step(self):
        kinds = [
            "bn",
            "bn",
            "linear",
            "crossed",
            "merge",
            "merge",
            "other",
            "again",
            "through",
            "through",
        ]
        kind = self.pick(kinds + ["custom"] * 4 if self.custom else kinds)
        if kind == "custom":
            self.tensors.append(self.custom_layer())
        elif kind == "merge":
            self.tensors.append(self.merged(self.tensor(), self.tensor()))
        elif kind == "other":
            self.tensors.append(self.other(self.tensor()))
        elif kind == "through":  # with something between a batch norm and what may take it up
            first, last = self.pick([(self.linear, self.batch_norm), (self.batch_norm, self.linear)])
            self.tensors.append(last()(self.crossed()(first()(self.tensor()))))
        elif kind == "again" and self.layers:
            self.tensors.append(self.pick(self.layers)(self.tensor()))
        else:
            makers = {"bn": self.batch_norm, "crossed": self.crossed}
            layer = makers.get(kind, self.linear)()
            if isinstance(layer, L.Layer):
                self.layers.append(layer)
            self.tensors.append(layer(self.tensor()))

    def merged(self, x, y):
        own = {"axis": self.axis}
        return self.pick(
            [
                lambda: self.normal_of(L.Add()([self.linear_of(x), self.linear_of(y)])),
                # Of these two one has to take the offset with its sign, and both have to.
                lambda: self.normal_of(L.Subtract()([L.ReLU()(self.linear_of(x)), self.linear_of(y)])),
                lambda: self.linear_of(self.sharper(self.normal_of(L.Activation("tanh")(x)))),
                lambda: L.Add()([x, y]),
                lambda: x + y,
                lambda: L.Subtract()([x, y]),
                lambda: L.Average()([x, y]),
                lambda: L.Maximum()([x, y]),
                lambda: L.Multiply()([x, keras.ops.sigmoid(y)]),
                lambda: self.linear_of(self.normal_of(L.Concatenate(**own)([x, y]))),
                lambda: self.linear_of(keras.ops.concatenate([x, y], **own)),
            ]
        )()

    def linear_of(self, x):
        return L.Conv2D(CHANNELS, 1, **self.format)(x)

    def sharper(self, x):
        blurred = L.AveragePooling2D(3, strides=1, padding="same", **self.format)(x)
        return L.Subtract()([x, blurred])

    def normal_of(self, x):
        return self.batch_norm()(x)

    def other(self, x):
        own = self.format
        return self.pick(
            [
                lambda: x * 2.0,
                lambda: 1.5 - x,
                lambda: L.Conv2D(CHANNELS, 3, **own)(L.ZeroPadding2D(1, **own)(x)),
                lambda: L.AveragePooling2D(2, **own)(L.UpSampling2D(2, **own)(x)),
                lambda: L.Cropping2D(1, **own)(L.ZeroPadding2D(1, **own)(x)),
                lambda: L.Reshape(x.shape[1:])(L.Permute((2, 1, 3))(L.Permute((2, 1, 3))(x))),
                lambda: self.nested()(x),
                lambda: self.parts(x),
                lambda: self.parts(self.linear_of(x)),
                lambda: ops.transpose(self.normal_of(ops.transpose(x, (0, 2, 1, 3))), (0, 2, 1, 3)),
                lambda: self.linear_of(x - self.reduced(self.normal_of(ops.tanh(x)))),
                lambda: x + self.normal_of(self.reduced(self.linear_of(x))),
                lambda: self.padded(x),
            ]
        )()

    def parts(self, x):
        """Some of the channels normalised, some not, and put together in another order."""
        first, rest = ops.split(x, [self.pick([1, 2])], self.axis)
        again = x[:, :2] if self.axis == 1 else x[..., :2]
        parts = [self.pick([self.normal_of, ops.tanh, ops.copy])(part) for part in (rest, first, again)]
        return self.linear_of(ops.concatenate(parts, self.axis))

    def reduced(self, x):
        axes = (2, 3) if self.axis == 1 else (1, 2)
        return self.pick([ops.mean, ops.sum, ops.max])(x, axes, keepdims=True)

    def padded(self, x):
        """Zeros around the image, or more channels."""
        row, channels = (2, 1) if self.axis == 1 else (1, 3)
        widths = np.zeros((4, 2), int)
        widths[self.pick([row, channels])] = 1, 2
        x = ops.pad(self.pick([ops.copy, self.normal_of, self.linear_of])(x), widths.tolist())
        x = self.normal_of(x) if self.pick([True, False]) else x
        return self.linear_of(x[:, :, :6] if self.axis == 1 else x[:, :6])

    def nested(self):
        inner = Builder(self.data, self.axis == 1, self.custom)
        for _ in range(self.data.draw(st.integers(1, 3))):
            inner.step()
        model = keras.Model(inner.inputs, inner.tensors[-1])
        self.layers.append(model)
        return model

    def custom_layer(self):
        """Call a new custom layer, once or twice."""
        if self.pick([True, False, False]):
            layer = self.chain(ON_TWO)
            call = self.on_two(layer)
        else:
            layer = call = self.chain(ON_ONE)
            self.layers.append(layer)
        x = call(self.tensor())
        how = self.pick(["once", "once", "in turn", "side by side"])
        if how == "in turn":
            return call(x)
        return self.merged(x, call(self.tensor())) if how == "side by side" else x

    def on_two(self, layer):
        y = self.tensor()
        if isinstance(layer, NamedSumChain):
            return lambda x: layer(x, other=y)
        return lambda x: layer([x, y])

    def chain(self, kinds, depth=0):
        """A custom layer around a batch norm, at any place, and what stands around it."""
        if kinds is ON_ONE and self.pick([True] + [False] * 7):
            kinds = CLOSED
        parts = [self.part(kinds, depth) for _ in range(self.data.draw(st.integers(0, 2)))]
        parts.insert(self.data.draw(st.integers(0, len(parts))), self.batch_norm())
        return chain(self.pick(kinds), parts, self.pick([True, False]), self.pick([True, False, False]))

    def part(self, kinds, depth):
        kind = self.pick(["linear", "linear", "linear", "crossed", "custom", "again", "nested"])
        if kind == "crossed":
            return self.crossed()
        if kinds is CLOSED or depth == 2:
            return self.linear()
        if kind == "custom":
            return self.chain(ON_ONE, depth + 1)
        if kind == "again" and self.layers:
            return self.pick(self.layers)
        return self.nested() if kind == "nested" else self.linear()

    def model(self):
        for _ in range(self.data.draw(st.integers(2, 9))):
            self.step()
        outputs = [self.tensors[-1]]
        head = self.pick([None, None, L.Flatten(**self.format), L.GlobalAveragePooling2D(**self.format)])
        if head is not None:
            outputs = [L.Dense(3)(head(self.normal_of(outputs[0])))]
        if self.pick([True, False]):
            outputs.append(self.tensor())
        return keras.Model(self.inputs, outputs)


def randomize_as_drawn(model, number):
    """Random weights; batch norms with positive scales, or without an offset, where that was drawn."""
    randomize(model, number)
    for layer in batch_norms(model).values():
        if getattr(layer, "positive", False) and layer.gamma is not None:
            layer.gamma.assign(abs(layer.gamma))
        if getattr(layer, "straight", False):
            layer.moving_mean.assign(layer.moving_mean * 0)
            if layer.beta is not None:
                layer.beta.assign(layer.beta * 0)
    return model
