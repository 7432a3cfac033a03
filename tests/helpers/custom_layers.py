"""Custom layers and a subclassed model with batch norms inside."""

import keras
import numpy as np

import tfbn

L = keras.layers
IMAGE = (8, 8, 4)


class ConvBNReLU(L.Layer):
    def __init__(self, filters=4, names=("conv", "bn"), **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(filters, 3, padding="same", name=names[0])
        self.bn = tfbn.BatchNorm(name=names[1])

    def build(self, shape):
        self.conv.build(shape)
        self.bn.build(self.conv.compute_output_shape(shape))

    def call(self, inputs, training=None):
        return keras.ops.relu(self.bn(self.conv(inputs), training=training))


class Block(L.Layer):
    """Layers in a list and in a dictionary, and another custom layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convs = [ConvBNReLU(name=f"conv{number}") for number in range(2)]
        self.others = {"bn": L.BatchNormalization(name="last")}

    def build(self, shape):
        for layer in self.convs:
            layer.build(shape)
        self.others["bn"].build(shape)

    def call(self, inputs, training=None):
        x = inputs
        for layer in self.convs:
            x = layer(x, training=training)
        return self.others["bn"](L.Conv2D.__call__(self.convs[0].conv, x), training=training) + inputs


class ResNet(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = ConvBNReLU(name="stem")
        self.blocks = [ConvBNReLU(name=f"block{number}") for number in range(3)]
        self.head = L.Dense(2, name="head")

    def call(self, inputs, training=None):
        x = self.stem(inputs, training=training)
        for block in self.blocks:
            x = block(x, training=training) + x
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def resnet():
    model = ResNet(name="resnet")
    model(np.zeros((1, *IMAGE), "float32"))
    return model
