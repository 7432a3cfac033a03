"""Sources of Keras 1 and 2: where today's Keras has what they import, and what it has not."""

import ast
import importlib

import keras
import pytest

from tfbn import compat
from tfbn.compat.migrate import moved
from tfbn.compat.migrate.one_file import rewritten
from tfbn.compat.migrate.sources import decoded


def migrated(program):
    text, findings = rewritten(decoded(program.encode()), ast.parse(program))
    assert rewritten(decoded(text.encode()), ast.parse(text))[0] == text
    return text, [(found.line, found.text) for found in findings]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            "from keras.layers.normalization import BatchNormalization",
            "from tfbn.compat import BatchNormalization",
        ),
        (
            "from keras.layers.normalization import BatchNormalization as BN\nx = BN(mode=2, axis=1)",
            "from tfbn.compat import BatchNormalization as BN\nx = BN(mode=2, axis=1)",
        ),
        # Keras 2's, by its arguments
        (
            "from keras.layers.normalization import BatchNormalization as BN\nx = BN(scale=False)",
            "from keras.layers import BatchNormalization as BN\nx = BN(scale=False)",
        ),
        (
            "from keras.layers.normalization import BatchNormalization as BN\nx = BN(-1)",
            "from keras.layers import BatchNormalization as BN\nx = BN(-1)",
        ),
        (
            "from keras.layers.core import Dense, Dropout as Drop",
            "from keras.layers import Dense, Dropout as Drop",
        ),
        (
            "from keras.layers.core import (Dense,  # all\n   Lambda)",
            "from keras.layers import (Dense,  # all\n   Lambda)",
        ),
        ("from keras.layers.convolutional import Conv2D", "from keras.layers import Conv2D"),
        ("from keras.layers.pooling import MaxPooling2D", "from keras.layers import MaxPooling2D"),
        ("from keras.layers.recurrent import LSTM", "from keras.layers import LSTM"),
        ("from keras.layers.embeddings import Embedding", "from keras.layers import Embedding"),
        ("from keras.layers.advanced_activations import PReLU", "from keras.layers import PReLU"),
        ("from keras.layers.merge import concatenate", "from keras.layers import concatenate"),
        ("from keras.layers.wrappers import Bidirectional", "from keras.layers import Bidirectional"),
        ("from keras.layers.noise import GaussianNoise", "from keras.layers import GaussianNoise"),
        ("from keras.engine.topology import Layer", "from keras.layers import Layer"),
        (
            "from keras.engine import Layer, Model",
            "from keras.layers import Layer\nfrom keras.models import Model",
        ),
        ("from keras.utils.np_utils import to_categorical", "from keras.utils import to_categorical"),
        ("from keras.utils import np_utils", "from keras import utils as np_utils"),
        ("import keras.utils.np_utils as u", "from keras import utils as u"),
        ("from keras import objectives", "from keras import losses as objectives"),
        (
            "from keras.layers.core import Dense, MaxoutDense",
            "from keras.layers import Dense\nfrom keras.layers.core import MaxoutDense",
        ),
    ],
)
def test_imports(before, expected):
    assert migrated(before)[0] == expected


@pytest.mark.parametrize(
    "line",
    [
        "import keras",
        "from keras.layers import Dense, BatchNormalization",
        "from keras.layers.convolutional import Convolution2D",
        "import keras.layers.core",
        "import keras.utils.np_utils",
        "from keras.layers.core import *",
        "from keras import backend as K",
        "from mykeras.layers.core import Dense",
        "from .keras.layers.core import Dense",
    ],
)
def test_imports_that_stay(line):
    assert migrated(line)[0] == line


@pytest.mark.parametrize("old", moved.MOVED)
def test_what_moved_is_there(old):
    module, _, name = moved.MOVED[old].rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    assert name in ("utils", "losses", old.rpartition(".")[2])


def test_both_batch_normalizations_are_there():
    assert moved.OURS.rpartition(".")[2] in compat.__all__
    assert f"keras.layers.{keras.layers.BatchNormalization.__name__}" == moved.THEIRS


@pytest.mark.parametrize("name", moved.GONE)
def test_what_is_gone_is_gone(name):
    """Or means something else: Keras 3's Convolution2D(64, 3, 3) has a stride of 3."""
    assert not hasattr(keras.layers, name) or "with other arguments" in moved.GONE[name]


MODE, ARGUMENT, GONE = (
    "mode= is Keras 1's",
    "border_mode= is Keras 1's: write padding=.",
    "Convolution2D: ",
)


@pytest.mark.parametrize(
    ("program", "beginning", "where"),
    [
        ("from keras.layers import BatchNormalization as B\nB(mode=1)", MODE, [2]),
        ("import keras\nkeras.layers.BatchNormalization(mode=1)", MODE, [2]),
        ("from keras.layers import BatchNormalization as B\nB(axis=1)", MODE, []),
        ("from keras.models import Model\nopen('f', mode='r')", MODE, []),
        ("from keras.layers import Conv2D\nConv2D(3, 3,\n border_mode='same')", ARGUMENT, [3]),
        ("from keras.layers import Conv2D\nConv2D(3, 3, padding='same')", ARGUMENT, []),
        ("from scipy import ndimage\nndimage.f(border_mode='same')", ARGUMENT, []),
        (
            "from keras.models import Model\nm.fit(x, nb_epoch=3)",
            "nb_epoch= is Keras 1's: write epochs=",
            [2],
        ),
        ("from keras.layers import Convolution2D as C\n\nC(3, 3, 3)", GONE, [1, 3]),
        ("from keras.layers.convolutional import Convolution2D", GONE, [1]),
        ("import keras\nkeras.layers.Convolution2D(3, 3, 3)", GONE, [2]),
        ("from keras.layers import Conv2D", GONE, []),
        (
            "from keras.layers import merge\nmerge([x, y], mode='sum')",
            "merge: Keras 3 has no merge",
            [1, 2],
        ),
        ("from keras.layers import add\nmerge([x, y], mode='sum')", "merge: Keras 3 has no merge", []),
        ("from keras.layers.core import MaxoutDense", "MaxoutDense: Keras 3 has no such layer", [1]),
        (
            "from keras.layers.core import Nothing",
            "keras.layers.core.Nothing: Keras 3 has no keras.la",
            [1],
        ),
        ("import keras.layers.core", "Keras 3 has no keras.layers.core; import from keras.layers", [1]),
        ("import keras.utils.np_utils", "keras.utils.np_utils: the line stays", [1]),
        (
            "from keras.layers.core import *",
            "keras.layers.core.*: Keras 3 has no keras.layers.core",
            [1],
        ),
        ("from keras.layers import Dense", "", []),
    ],
)
def test_advice(program, beginning, where):
    assert [line for line, text in migrated(program)[1] if text.startswith(beginning)] == where
