"""Small real trainings on scikit-learn's digits, healthy and sick in each way."""

import keras
from sklearn.datasets import load_digits

import tfbn

L = keras.layers

DIGITS = load_digits()
X = (DIGITS.images[..., None] / 16).astype("float32")
Y = DIGITS.target


def ours(decay, name):
    return tfbn.BatchNorm(decay=decay, name=name)


def stock(decay, name):
    return L.BatchNormalization(momentum=decay, name=name)


def dense(batch_norm=ours, decay=0.9, dropout=0.0):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Flatten(),
            L.Dense(32, use_bias=False),
            batch_norm(decay, "first"),
            L.ReLU(),
            L.Dropout(dropout),
            L.Dense(16),
            batch_norm(decay, "second"),
            L.ReLU(),
            L.Dense(10, activation="softmax"),
        ]
    )


def conv(batch_norm=ours, decay=0.9, dropout=0.0):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(8, 3, padding="same", use_bias=False),
            batch_norm(decay, "first"),
            L.ReLU(),
            L.Conv2D(16, 3, strides=2),
            batch_norm(decay, "second"),
            L.ReLU(),
            L.Flatten(),
            L.Dropout(dropout),
            L.Dense(16),
            batch_norm(decay, "third"),
            L.ReLU(),
            L.Dense(10, activation="softmax"),
        ]
    )


def trained(build, epochs, batch_size=32, seed=0, optimizer="adam", **settings):
    """A network of `build`, trained on all digits."""
    keras.utils.set_random_seed(seed)
    model = build(**settings)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=epochs, batch_size=batch_size, verbose=0)
    return model
