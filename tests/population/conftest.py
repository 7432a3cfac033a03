"""Fixtures shared by the tests of population statistics."""

import keras
import pytest

import tfbn
from networks import chain

L = keras.layers


@pytest.fixture
def model():
    """Ours and Keras' own, nested, in a wrapper and in a layer of its own, with dropout between."""
    inner = keras.Sequential(
        [keras.Input((6, 5, 4)), L.Conv2D(4, 3), tfbn.BatchNorm(name="ours"), L.ReLU()], name="inner"
    )
    return chain(
        (6, 5, 3),
        tfbn.BatchNorm(name="first"),
        L.Dropout(0.9),
        L.Dense(4),
        L.BatchNormalization(name="stock"),
        inner,
        L.TimeDistributed(L.BatchNormalization(name="step"), name="timed"),
    )
