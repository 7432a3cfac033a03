"""A process that exports to one path without end, for a test to kill."""

import keras
import numpy as np

import tfbn


def small_model(offset, width=3):
    """A model with a batch norm to fold, whose answer to zeros is `offset`."""
    inputs = keras.Input((2,), name="x")
    model = keras.Model(inputs, tfbn.BatchNorm()(keras.layers.Dense(width)(inputs)))
    model.layers[-1].beta.assign(np.full(width, offset))
    model.layers[-1].moving_variance.assign(np.full(width, 2.0))
    return model


def export_forever(path, offsets, ready):
    """Export a model of each offset in turn; set the event after the first."""
    models = [small_model(offset) for offset in offsets]
    while True:
        for model, freeze in zip(models, (True, False), strict=True):
            tfbn.export(model, path, overwrite=True, freeze=freeze)
            ready.set()
