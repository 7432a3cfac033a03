"""Layers of Keras 1 with their configurations, weights and oracles, to make cases of."""

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


WEIGHTED = {
    "init": "glorot_uniform",
    "W_regularizer": None,
    "b_regularizer": None,
    "activity_regularizer": None,
}
WEIGHTED |= {"W_constraint": None, "b_constraint": None}
CONVOLVED = WEIGHTED | {"bias": True, "activation": "linear"}


def dense(name, shape, **config):
    w = [draw(shape[-1], 4), draw(4)]
    act = o.ACTIVATIONS[config.get("activation", "linear")]
    return case(
        name,
        WEIGHTED
        | {"output_dim": 4, "activation": "linear", "bias": True, "input_dim": shape[-1]}
        | config,
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
    config = CONVOLVED | {"nb_filter": filters, "border_mode": border, "subsample": list(strides)}
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
    config = CONVOLVED | {
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
    config = CONVOLVED | {"nb_filter": 3, "nb_row": size[0], "nb_col": size[1], "border_mode": border}
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
    config = CONVOLVED | {
        "nb_filter": 4,
        "nb_row": 3,
        "nb_col": 3,
        "border_mode": "same",
        "subsample": [1, 1],
    }
    config |= {"dim_ordering": ordering, "depth_multiplier": 2, "depthwise_regularizer": None}
    config |= {
        f"{step}_{kind}": None
        for step in ("depthwise", "pointwise")
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
    weights = [draw(*shape) for _ in gates for shape in ((3, 4), (4, 4), (4,))]
    base = {"output_dim": 4, "init": "glorot_uniform", "inner_init": "orthogonal", "activation": "tanh"}
    base |= {"return_sequences": False, "go_backwards": False, "stateful": False, "unroll": False}
    base |= {
        "consume_less": "cpu",
        "dropout_W": 0.0,
        "dropout_U": 0.0,
        "input_dim": 3,
        "input_length": 5,
    }
    base |= {f"{weight}_regularizer": None for weight in "WUb"}
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
    settings = {key: value for key, value in (base | config).items() if value is not None}
    return case(kind, settings, shape, whole, given, name=label)
