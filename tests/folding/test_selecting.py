"""tfbn.fold: parts of a tensor, zeros around it, sums along it."""

import keras
import numpy as np
import pytest

from folds import IMAGE, bn, check, functional, weigh

L, ops = keras.layers, keras.ops

PARTS = {
    "x[..., :3]": lambda x: (x[..., :3], x[..., 3:]),
    "x[:, :, :, ::-2]": lambda x: (x[:, :, :, ::-2], x[:, :, :, -2::-2]),
    "split": lambda x: ops.split(x, 2, -1),
    "split at": lambda x: ops.split(x, [1, 4], 3)[::2],
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("normalized", [(True, True), (True, False), (False, True)])
def test_parts_of_channels(name, normalized):
    def model(before, after):
        inputs = keras.Input(IMAGE)
        x = before(inputs)
        parts = [
            L.Activation("tanh")(bn()(part)) if own else L.Activation("sigmoid")(part)
            for part, own in zip(PARTS[name](x), normalized, strict=True)
        ]
        return weigh(keras.Model(inputs, [after(part) for part in parts]))

    count = sum(normalized)
    check(model(L.Conv2D(6, 2, name="conv"), L.Flatten()), folded=count, into=["conv"])


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("used", [(0, 1), (0,), (1,)])
def test_forwards_into_what_takes_the_parts(name, used):
    inputs = keras.Input((9, 8, 6))
    parts = PARTS[name](bn()(L.Activation("tanh")(inputs)))
    heads = [L.Conv2D(3, 2, name=f"head{number}")(parts[number]) for number in used]
    check(weigh(keras.Model(inputs, heads)), folded=1, into=[f"head{number}" for number in used])


def test_one_channel():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(6, 2, name="conv")(inputs)
    one = L.Activation("tanh")(bn(axis=1)(x[..., 2]))
    model = weigh(keras.Model(inputs, [one, x[..., 0]]))
    check(model, folded=0, reason="which is not the channel axis 3")
    x = bn()(L.Activation("tanh")(inputs))
    vector = L.Flatten()(x[..., -2])
    check(weigh(keras.Model(inputs, L.Dense(2, name="dense")(vector))), folded=1, into=["dense"])


def test_channels_first():
    inputs = keras.Input((4, 9, 8))
    x = L.Permute((3, 1, 2))(L.Conv2D(6, 2, name="conv")(L.Permute((2, 3, 1))(inputs)))
    parts = x[:, :2], x[:, 2:]
    heads = [L.Activation("tanh")(bn(axis=1)(part)) for part in parts]
    check(weigh(keras.Model(inputs, heads)), folded=2, into=["conv"])


def test_a_part_that_something_else_overlaps():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(6, 2)(inputs)
    model = keras.Model(inputs, [bn()(x[..., :3]), L.Activation("tanh")(x[..., 2:])])
    check(weigh(model), folded=0, reason="is used by more than this batch norm: by 'get_item")
    rows = keras.Model(inputs, [bn()(x[:, :3]), L.Activation("tanh")(x[:, 3:])])
    check(weigh(rows), folded=0, reason="not the channel axis 3")
    whole = keras.Model(inputs, [bn()(x[..., :3]), x])
    check(weigh(whole), folded=0, reason="as an output of the model")


def test_parts_of_one_size_in_a_concatenation():
    inputs = keras.Input(IMAGE)
    first, second = ops.split(bn()(L.Activation("tanh")(inputs)), 2, -1)
    shuffled = L.Concatenate()([second, first])
    check(weigh(keras.Model(inputs, L.Dense(3, name="dense")(shuffled))), folded=1, into=["dense"])


def test_channels_shuffled():
    def shuffle(x):
        x = ops.reshape(x, (-1, *x.shape[1:-1], 2, 3))
        return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, *x.shape[1:-2], 6))

    model = functional(IMAGE, L.Conv2D(6, 2, name="conv"), shuffle, bn(), L.Activation("tanh"))
    check(weigh(model), folded=1, into=["conv"])
    model = functional((9, 8, 6), L.Activation("tanh"), bn(), shuffle, L.Dense(3, name="dense"))
    check(weigh(model), folded=1, into=["dense"])


def test_channels_of_zeros():
    def wider(x):
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]])

    forwards = functional(IMAGE, L.Activation("tanh"), bn(), wider, L.Conv2D(3, 2, name="conv"))
    check(weigh(forwards), folded=1, into=["conv"])
    backwards = functional(IMAGE, L.Conv2D(4, 2, name="conv"), wider, bn(), L.Activation("tanh"))
    check(weigh(backwards), folded=0, reason="an offset does not pass")
    check(weigh(backwards, offset=False), folded=1, into=["conv"])
    weigh(backwards)
    layer = backwards.layers[-2]
    for weight in (layer.beta, layer.moving_mean):  # an offset of the channels that are not padded
        weight.assign(np.where([0, 1, 1, 1, 1, 0, 0], weight, 0))
    check(backwards, folded=1, into=["conv"])
    layer.beta.assign([1.0] * 7)  # and one that is the same everywhere
    layer.moving_mean.assign([0.0] * 7)
    check(backwards, folded=0, reason="an offset does not pass")


NOT_KEPT = {-1.0: "a negative scale does not pass", 0.0: "a scale of 0 makes no number"}


@pytest.mark.parametrize("gamma", [-1.0, 0.0, 1.0])
def test_infinite_channels(gamma):
    def wider(x):
        return ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]], constant_values=-np.inf)

    model = functional(IMAGE, L.Conv2D(4, 2, name="conv"), wider, bn(), L.Activation("tanh"))
    layer = weigh(model, positive=True).layers[-2]
    layer.gamma.assign(np.where(np.arange(7) == 3, gamma, layer.gamma))
    check(model, folded=int(gamma > 0), reason=NOT_KEPT.get(gamma))


UNKNOWN = (None, None, 4)


def test_sizes_that_are_not_known():
    tanh = L.Activation("tanh")
    x = np.random.default_rng(0).normal(size=(3, 6, 5, 4)).astype("float32")
    for step, folded in {
        (lambda x: ops.transpose(x, (0, 2, 1, 3))): 1,
        (lambda x: ops.reshape(x, (-1, 4))): 1,
        (lambda x: ops.reshape(x, (-1, 2))): 0,
        (lambda x: ops.mean(x, (1, 2))): 1,
        (lambda x: ops.sum(x, 1)): 0,
        (lambda x: x[:, 1:]): 1,
        (lambda x: ops.expand_dims(x, -2)): 1,
    }.items():
        model = weigh(functional(UNKNOWN, tanh, bn(), step, L.Dense(3)))
        check(model, folded, x=x, reason=None if folded else "not known")


REFUSED = {
    "mean of samples": (lambda x: ops.mean(x, (0, 1)), "puts samples together"),
    "mean of all": (lambda x: ops.reshape(ops.mean(x), (1, 1)), "puts samples together"),
    "mean of channels": (lambda x: ops.mean(x, -1), "mixes what lies along axis 3"),
    "max with a number": (lambda x: ops.max(x, 1, initial=0.5), "compares with a number"),
    "pad with a number": (
        lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5),
        "pads with a number",
    ),
    "pad channels with copies": (
        lambda x: ops.pad(x, [[0, 0], [0, 0], [0, 0], [1, 1]], "reflect"),
        "repeats what lies along axis 3",
    ),
    "pad samples": (lambda x: ops.pad(x, [[1, 0], [0, 0], [0, 0], [0, 0]]), "adds samples"),
    "transposed samples": (lambda x: ops.transpose(x, (1, 0, 2, 3)), "takes the samples' axis"),
    "swapped samples": (lambda x: ops.swapaxes(x, 0, 1), "takes the samples' axis"),
    "some samples": (lambda x: x[:2, :], "takes samples"),
    "a new axis": (lambda x: x[:, :, :, None], "makes axes"),
    "a number and a new axis": (lambda x: x[:, :, 0, None], "makes axes"),
    "antialias": (lambda x: ops.image.resize(x, (3, 3), antialias=True), "antialias"),
    "letterbox": (lambda x: ops.image.resize(x, (3, 9), pad_to_aspect_ratio=True), "pad_to_aspect"),
    "another type": (lambda x: ops.cast(x, "float16"), "computes in float32 and"),
    "ceiling": (lambda x: keras.activations.relu(x, max_value=6.0), "can neither take it up"),
    "threshold": (lambda x: keras.activations.relu(x, threshold=0.5), "can neither take it up"),
    "relu6": (ops.relu6, "can neither take it up"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_crossed(name):
    step, reason = REFUSED[name]
    tail = L.Dense(3, dtype="float16") if name == "another type" else L.Dense(3)
    model = functional(IMAGE, L.Activation("tanh"), bn(), step, tail)
    check(weigh(model, positive=True, offset=False), folded=0, reason=reason)


def test_split_samples():
    inputs = keras.Input(batch_shape=(5, *IMAGE))
    part = ops.split(bn()(L.Activation("tanh")(inputs)), [2], 0)[0]
    check(weigh(keras.Model(inputs, L.Dense(3)(part))), folded=0, reason="parts samples")


@pytest.mark.parametrize("like", [ops.zeros_like, ops.ones_like])
def test_what_reads_the_shape_alone(like):
    def either(x):
        return L.Dense(4, name="dense")(x) + like(x)

    tanh = L.Activation("tanh")
    check(weigh(functional(IMAGE, tanh, bn(), either)), folded=1, into=["dense"])
    beside = functional(IMAGE, L.Dense(4, name="first"), lambda x: bn()(x) + like(x), tanh)
    check(weigh(beside), folded=1, into=["first"])
    check(weigh(functional(IMAGE, L.Dense(4), like, bn())), folded=0, reason="makes numbers of its own")
