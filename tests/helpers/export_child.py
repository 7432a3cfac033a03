"""A process that exports to one path without end, until it has computed for as long as a test says."""

import signal

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


def export_until_killed(path, offsets, moment, warm):
    """Export a model of each offset in turn; the system kills it `moment` seconds of computing later.

    Counted from the start or, `warm`, from the end of the first export. Seconds of this process's own
    computing: others beside it do not count.
    """
    models = [small_model(offset) for offset in offsets]
    if not warm:
        signal.setitimer(signal.ITIMER_PROF, moment)
    while True:
        for model, freeze in zip(models, (True, False), strict=True):
            tfbn.export(model, path, overwrite=True, freeze=freeze)
            if warm:
                signal.setitimer(signal.ITIMER_PROF, moment)
                warm = False
