"""A case for each layer of Keras 1: configuration, weights, and what the oracle makes of them."""

import numpy as np

import legacy_oracle as o

_random = np.random.default_rng(5)


def draw(*shape):
    return _random.normal(0.3, 0.8, shape).astype("float32").astype("float64")


def case(class_name, config, shape, answer, weights=(), backend=None, dtype=None, name=""):
    """answer(x, *weights) is the oracle; `weights` are arrays in Keras 1's order."""
    x = draw(3, *shape) if dtype is None else _random.integers(0, 4, (3, *shape))
    label = f"{class_name}-{name}{'-' if backend else ''}{backend or ''}"
    return label, class_name, config, x, list(weights), answer, backend


_W = {
    "init": "glorot_uniform",
    "W_regularizer": None,
    "b_regularizer": None,
    "activity_regularizer": None,
}
_W |= {"W_constraint": None, "b_constraint": None}
_CONV = _W | {"bias": True, "activation": "linear"}


def dense(name, shape, **config):
    w = [draw(shape[-1], 4), draw(4)]
    act = o.ACTIVATIONS[config.get("activation", "linear")]
    return case(
        name,
        _W | {"output_dim": 4, "activation": "linear", "bias": True, "input_dim": shape[-1]} | config,
        shape,
        lambda x, w, b: act(x @ w + b),
        w,
        name=config.get("activation", ""),
    )


def kernel(size, channels, filters, ordering):
    return draw(filters, channels, *size) if ordering == "th" else draw(*size, channels, filters)


def modern(w, ordering):
    """(filters, channels, …) or (…, channels, filters) as the latter."""
    return np.moveaxis(w, (0, 1), (-1, -2)) if ordering == "th" else w


def convolution(rank, size, ordering, border, strides, backend, spatial=None, filters=4, rates=None):
    spatial = spatial or (7, 6, 5)[:rank]
    shape = (2, *spatial) if ordering == "th" else (*spatial, 2)
    names = {2: ("nb_row", "nb_col"), 3: ("kernel_dim1", "kernel_dim2", "kernel_dim3")}[rank]
    config = _CONV | {"nb_filter": filters, "border_mode": border, "subsample": list(strides)}
    config |= {"dim_ordering": ordering} | dict(zip(names, size, strict=True))
    config |= {"atrous_rate": list(rates)} if rates else {}

    def answer(x, w, b):
        y = o.convolve(o.last(x, ordering), modern(w, ordering), strides, border, backend, rates)
        return o.unlast(y + b, ordering)

    weights = [kernel(size, 2, filters, ordering), draw(filters)]
    name = f"{ordering}-{border}-{size}-{strides}-{spatial}"
    return case(
        f"{'Atrous' if rates else ''}Convolution{rank}D",
        config,
        shape,
        answer,
        weights,
        backend,
        name=name,
    )


def convolution1(border, stride, backend, *, old=False, rate=None, length=3):
    config = _CONV | {
        "nb_filter": 4,
        "filter_length": length,
        "subsample_length": stride,
        "border_mode": border,
    }
    config |= {"input_dim": 2, "input_length": None} | ({"atrous_rate": rate} if rate else {})
    W = draw(length, 1, 2, 4)

    def answer(x, w, b):
        w = w.transpose(2, 3, 1, 0) if old else w
        return o.convolve(x, w[:, 0], (stride,), border, backend, (rate,) if rate else None) + b

    given = W.transpose(3, 2, 0, 1) if old else W
    name = f"{border}-{stride}-{length}{'-old' if old else ''}"
    kind = "AtrousConvolution1D" if rate else "Convolution1D"
    return case(kind, config, (8, 2), answer, [given, draw(4)], backend, name=name)


def deconvolution(ordering, border, strides, output, backend, size=(3, 3), spatial=(4, 3)):
    shape = (2, *spatial) if ordering == "th" else (*spatial, 2)
    out = [None, 3, *output] if ordering == "th" else [None, *output, 3]
    config = _CONV | {"nb_filter": 3, "nb_row": size[0], "nb_col": size[1], "border_mode": border}
    config |= {"subsample": list(strides), "dim_ordering": ordering, "output_shape": out}

    def answer(x, w, b):
        y = o.deconvolve(o.last(x, ordering), modern(w, ordering), output, strides, border, backend)
        return o.unlast(y + b, ordering)

    weights = [kernel(size, 2, 3, ordering), draw(3)]
    return case(
        "Deconvolution2D", config, shape, answer, weights, backend, name=f"{ordering}-{border}-{output}"
    )


def separable(ordering):
    shape = (2, 7, 6) if ordering == "th" else (7, 6, 2)
    config = _CONV | {
        "nb_filter": 4,
        "nb_row": 3,
        "nb_col": 3,
        "border_mode": "same",
        "subsample": [1, 1],
    }
    config |= {"dim_ordering": ordering, "depth_multiplier": 2, "depthwise_regularizer": None}
    config |= {
        f"{one}_{kind}": None
        for one in ("depthwise", "pointwise")
        for kind in ("regularizer", "constraint")
    }
    for key in ("W_regularizer", "W_constraint"):
        del config[key]

    def answer(x, d, p, b):
        d, p, x = modern(d, ordering), modern(p, ordering), o.last(x, ordering)
        each = [
            o.convolve(x[..., [c]], d[:, :, [c]], (1, 1), "same", "tensorflow")
            for c in range(x.shape[-1])
        ]
        return o.unlast(np.concatenate(each, -1) @ p[0, 0] + b, ordering)

    D = draw(2, 2, 3, 3) if ordering == "th" else draw(3, 3, 2, 2)
    weights = [D, kernel((1, 1), 4, 4, ordering), draw(4)]
    return case("SeparableConvolution2D", config, shape, answer, weights, name=ordering)


def pool(kind, rank, size, strides, border, ordering="tf", backend="tensorflow"):
    spatial = (7, 6, 5)[:rank]
    shape = (2, *spatial) if ordering == "th" else (*spatial, 2)
    config = {"border_mode": border}
    if rank == 1:
        config |= {"pool_length": size[0], "stride": strides[0]}
    else:
        config |= {"pool_size": list(size), "strides": list(strides), "dim_ordering": ordering}

    def answer(x):
        y = o.pool(o.last(x, ordering), size, strides, border, kind, backend)
        return o.unlast(y, ordering)

    return case(
        f"{kind}Pooling{rank}D",
        config,
        shape,
        answer,
        (),
        backend,
        name=f"{ordering}-{border}-{size}-{strides}",
    )


def recurrent(kind, gates, answer, shape=(5, 3), **config):
    weights = [draw(*one) for _ in gates for one in ((3, 4), (4, 4), (4,))]
    base = {"output_dim": 4, "init": "glorot_uniform", "inner_init": "orthogonal", "activation": "tanh"}
    base |= {"return_sequences": False, "go_backwards": False, "stateful": False, "unroll": False}
    base |= {
        "consume_less": "cpu",
        "dropout_W": 0.0,
        "dropout_U": 0.0,
        "input_dim": 3,
        "input_length": 5,
    }
    base |= {f"{one}_regularizer": None for one in "WUb"}
    base |= {} if kind == "SimpleRNN" else {"inner_activation": "hard_sigmoid"}
    base |= {"forget_bias_init": "one"} if kind == "LSTM" else {}
    if config.get("consume_less") == "gpu":
        order = (0, 2, 1, 3) if kind == "LSTM" else (0, 1, 2)  # i, f, c, o
        packed = [np.concatenate([weights[3 * g + part] for g in order], -1) for part in range(3)]
        given = packed
    else:
        given = weights

    def whole(x, *w):
        x = x[:, ::-1] if config.get("go_backwards") else x
        y = answer(x, weights)
        return y if config.get("return_sequences") else y[:, -1]

    label = "-".join(f"{key}={value}" for key, value in config.items())
    settings = {key: one for key, one in (base | config).items() if one is not None}
    return case(kind, settings, shape, whole, given, name=label)


_A = [dense("Dense", (5,), activation=one) for one in o.ACTIVATIONS if one != "softmax"]
CASES = [
    *_A,
    dense("TimeDistributedDense", (3, 5)),
    case(
        "Dense",
        _W | {"output_dim": 4, "activation": "linear", "bias": False},
        (5,),
        lambda x, w: x @ w,
        [draw(5, 4)],
        name="no bias",
    ),
    *(
        case("Activation", {"activation": one}, (3, 5), o.ACTIVATIONS[one], name=one)
        for one in ("softmax", "hard_sigmoid")
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
        {f"{one}_init": "zero" for one in ("t_left", "a_left", "t_right", "a_right")},
        (4, 3),
        o.srelu,
        [draw(4, 3) for _ in range(4)],
    ),
]
