"""A case for each layer of Keras 1: configuration, weights, and what the oracle makes of them."""

import numpy as np

import legacy_oracle as o
from legacy_layers import (
    WEIGHTED,
    case,
    convolution,
    convolution1,
    deconvolution,
    dense,
    draw,
    pool,
    recurrent,
    separable,
)

DENSE = [
    dense("Dense", (5,), activation=activation)
    for activation in o.ACTIVATIONS
    if activation != "softmax"
]
CASES = [
    *DENSE,
    dense("TimeDistributedDense", (3, 5)),
    case(
        "Dense",
        WEIGHTED | {"output_dim": 4, "activation": "linear", "bias": False},
        (5,),
        lambda x, w: x @ w,
        [draw(5, 4)],
        name="no bias",
    ),
    *(
        case(
            "Activation", {"activation": activation}, (3, 5), o.ACTIVATIONS[activation], name=activation
        )
        for activation in ("softmax", "hard_sigmoid")
    ),
    case("Dropout", {"p": 0.5}, (5,), lambda x: x),
    case("SpatialDropout1D", {"p": 0.5}, (4, 5), lambda x: x),
    case("SpatialDropout2D", {"p": 0.5, "dim_ordering": "th"}, (4, 5, 6), lambda x: x),
    case("SpatialDropout3D", {"p": 0.5, "dim_ordering": "tf"}, (4, 5, 6, 2), lambda x: x),
    case("GaussianDropout", {"p": 0.5}, (5,), lambda x: x),
    case("GaussianNoise", {"sigma": 0.5}, (5,), lambda x: x),
    case("ActivityRegularization", {"l1": 0.1, "l2": 0.0}, (5,), lambda x: x),
    case("Masking", {"mask_value": 0.5}, (4, 5), lambda x: x),
    case("Flatten", {}, (3, 4, 2), lambda x: x.reshape(3, -1)),
    case("Reshape", {"target_shape": [2, -1]}, (3, 4), lambda x: x.reshape(3, 2, 6)),
    case("Permute", {"dims": [2, 3, 1]}, (3, 4, 2), lambda x: x.transpose(0, 2, 3, 1)),
    case("RepeatVector", {"n": 3}, (4,), lambda x: np.repeat(x[:, None], 3, 1)),
    case(
        "Embedding",
        {
            "input_dim": 4,
            "output_dim": 5,
            "init": "uniform",
            "input_length": 6,
            "mask_zero": False,
            "dropout": 0.0,
            "activity_regularizer": None,
            "W_regularizer": None,
            "W_constraint": None,
        },
        (6,),
        lambda x, w: w[x],
        [draw(4, 5)],
        dtype="int32",
    ),
    *(
        convolution(2, *settings, backend)
        for backend in ("theano", "tensorflow")
        for settings in (
            ((3, 2), "th", "valid", (1, 1)),
            ((3, 2), "tf", "same", (1, 1)),
            ((3, 3), "th", "same", (2, 2)),
            ((4, 3), "tf", "same", (2, 1)),
            ((2, 5), "th", "same", (3, 2)),
        )
    ),
    convolution(
        2, (3, 3), "th", "valid", (1, 1), "theano", spatial=(7, 6), filters=4
    ),  # as wide as deep
    convolution(2, (3, 3), "th", "same", (2, 2), "tensorflow", spatial=(7, 8), filters=4),
    convolution(2, (1, 1), "th", "same", (1, 1), None),
    *(convolution(3, (2, 3, 2), ordering, "same", (1, 2, 1), "theano") for ordering in ("th", "tf")),
    convolution(3, (2, 3, 2), "th", "valid", (1, 1, 1), "tensorflow"),
    convolution(2, (3, 2), "th", "same", (1, 1), "theano", rates=(2, 2)),
    convolution(2, (2, 2), "tf", "valid", (1, 1), "tensorflow", rates=(2, 3)),
    *(
        convolution1(border, stride, backend)
        for backend in ("theano", "tensorflow")
        for border, stride in (("valid", 1), ("same", 2))
    ),
    convolution1("same", 1, "theano", length=4),
    convolution1("valid", 1, "theano", old=True),
    convolution1("same", 1, "tensorflow", rate=2),
    deconvolution("th", "valid", (2, 2), (9, 7), "theano"),
    deconvolution("th", "valid", (2, 2), (10, 8), "tensorflow"),
    deconvolution("tf", "same", (2, 2), (8, 6), "tensorflow"),
    deconvolution("tf", "same", (2, 2), (7, 5), "tensorflow"),
    deconvolution("tf", "same", (2, 2), (7, 5), "theano"),
    deconvolution("th", "same", (1, 1), (4, 3), "theano"),
    deconvolution("tf", "same", (2, 2), (8, 6), "tensorflow", size=(4, 2)),
    deconvolution("tf", "valid", (3, 3), (12, 9), "tensorflow", size=(2, 2)),
    separable("th"),
    separable("tf"),
    *(
        pool(kind, rank, size[:rank], strides[:rank], border, ordering, backend)
        for kind in ("Max", "Average")
        for rank, size, strides, border, ordering, backend in (
            (1, (3,), (2,), "valid", "tf", None),
            (1, (2,), (2,), "same", "tf", "theano"),
            (1, (3,), (1,), "same", "tf", None),
            (2, (2, 3), (2, 2), "valid", "th", None),
            (2, (2, 3), (2, 2), "same", "th", "theano"),
            (2, (5, 4), (1, 3), "same", "tf", "theano"),
            (2, (2, 3), (2, 2), "same", "th", "tensorflow"),
            (3, (2, 2, 2), (2, 2, 2), "valid", "th", None),
            (3, (2, 3, 2), (2, 1, 2), "same", "tf", "theano"),
        )
    ),
    *(
        case(
            f"Global{kind}Pooling{rank}D",
            {"dim_ordering": ordering} if rank > 1 else {},
            (4, 5, 3, 2)[: rank + 1],
            lambda x, f=f, ordering=ordering: f(o.last(x, ordering), tuple(range(1, x.ndim - 1))),
            name=ordering,
        )
        for kind, f in (("Max", np.max), ("Average", np.mean))
        for rank, ordering in ((1, "tf"), (2, "th"), (2, "tf"), (3, "th"), (3, "tf"))
    ),
    case("ZeroPadding1D", {"padding": 2}, (4, 3), lambda x: np.pad(x, ((0, 0), (2, 2), (0, 0)))),
    case(
        "ZeroPadding1D",
        {"padding": [1, 2]},
        (4, 3),
        lambda x: np.pad(x, ((0, 0), (1, 2), (0, 0))),
        name="two",
    ),
    case(
        "ZeroPadding2D",
        {"padding": [1, 2], "dim_ordering": "th"},
        (2, 4, 3),
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2))),
    ),
    case(
        "ZeroPadding2D",
        {"padding": [1, 2, 0, 3], "dim_ordering": "tf"},
        (4, 3, 2),
        lambda x: np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0))),
        name="four",
    ),
    case(
        "ZeroPadding2D",
        {"padding": {"top_pad": 1, "left_pad": 2}, "dim_ordering": "tf"},
        (4, 3, 2),
        lambda x: np.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0))),
        name="sides",
    ),
    case(
        "ZeroPadding3D",
        {"padding": [1, 2, 3], "dim_ordering": "tf"},
        (2, 2, 2, 2),
        lambda x: np.pad(x, ((0, 0), (1, 1), (2, 2), (3, 3), (0, 0))),
    ),
    case("Cropping1D", {"cropping": [1, 2]}, (6, 3), lambda x: x[:, 1:-2]),
    case(
        "Cropping2D",
        {"cropping": [[1, 2], [0, 1]], "dim_ordering": "th"},
        (2, 6, 5),
        lambda x: x[:, :, 1:-2, :-1],
    ),
    case(
        "Cropping3D",
        {"cropping": [[1, 1], [0, 1], [2, 0]], "dim_ordering": "tf"},
        (5, 5, 5, 2),
        lambda x: x[:, 1:-1, :-1, 2:],
    ),
    case("UpSampling1D", {"length": 2}, (3, 2), lambda x: x.repeat(2, 1)),
    case(
        "UpSampling2D",
        {"size": [2, 3], "dim_ordering": "th"},
        (2, 3, 4),
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    case(
        "UpSampling3D",
        {"size": [2, 1, 3], "dim_ordering": "tf"},
        (2, 3, 2, 2),
        lambda x: x.repeat(2, 1).repeat(3, 3),
    ),
    recurrent("SimpleRNN", "h", o.simple_rnn),
    recurrent("SimpleRNN", "h", o.simple_rnn, return_sequences=True, go_backwards=True),
    recurrent("LSTM", "icfo", o.lstm, return_sequences=True),
    recurrent("LSTM", "icfo", o.lstm, consume_less="gpu"),
    recurrent(
        "LSTM", "icfo", lambda x, w: o.lstm(x, w, o.sigmoid), inner_activation="sigmoid", unroll=True
    ),
    recurrent("GRU", "zrh", o.gru, return_sequences=True),
    recurrent("GRU", "zrh", o.gru, inner_activation=None, activation=None),  # the defaults
    recurrent("GRU", "zrh", o.gru, consume_less="gpu", go_backwards=True),
    case("LeakyReLU", {"alpha": 0.2}, (5,), lambda x: np.where(x > 0, x, 0.2 * x)),
    case("ELU", {"alpha": 0.7}, (5,), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    case("ThresholdedReLU", {"theta": 0.4}, (5,), lambda x: x * (x > 0.4)),
    case(
        "PReLU",
        {"init": "zero", "shared_axes": None},
        (4, 3),
        lambda x, a: np.where(x > 0, x, a * x),
        [draw(4, 3)],
    ),
    case(
        "PReLU",
        {"init": "zero", "shared_axes": [1]},
        (4, 3),
        lambda x, a: np.where(x > 0, x, a * x),
        [draw(1, 3)],
        name="shared",
    ),
    case(
        "ParametricSoftplus",
        {"alpha_init": 0.2, "beta_init": 5.0},
        (4, 3),
        lambda x, a, b: a * np.log1p(np.exp(b * x)),
        [draw(4, 3), draw(4, 3)],
    ),
    case(
        "SReLU",
        {f"{place}_init": "zero" for place in ("t_left", "a_left", "t_right", "a_right")},
        (4, 3),
        o.srelu,
        [draw(4, 3) for _ in range(4)],
    ),
]
