"""compat.batch_normalization against the original tf.layers function."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tf1_programs
from sweeps import covering
from tfbn import BatchNorm, BatchRenorm, compat

V1 = tf.compat.v1
RANKS = {2: (8, 3), 3: (8, 5, 3), 4: (4, 5, 6, 3), 5: (4, 2, 3, 5, 3)}
CLIP = {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}
SET = {f"{name}_initializer": ["constant", value] for name, value in
       (("gamma", 1.5), ("beta", 0.5), ("moving_mean", 2.0), ("moving_variance", 3.0))}  # fmt: skip


def grid():
    plain = {"momentum": 0.9}
    for shape in RANKS.values():
        for fused in (None, False):
            for training in (True, False, "tensor"):
                kwargs = plain | {"fused": fused}
                yield {"kwargs": kwargs, "shape": shape, "training": training, "learning_rate": 0.05}
    for axis in (0, 1, 2, [1, 3], [1, 2, 3], [-1]):
        yield {"kwargs": plain | {"axis": axis}, "shape": RANKS[4]}
    for shape in ((8, 3), (8, 2, 2, 3)):
        for size in (2, 4, 8):
            for training in (True, False, "tensor"):
                kwargs = plain | {"virtual_batch_size": size}
                yield {"kwargs": kwargs, "shape": shape, "training": training}
    virtual = plain | {"virtual_batch_size": 2}
    yield {"kwargs": virtual | {"axis": 1}, "shape": (8, 3, 2, 2)}
    yield {"kwargs": virtual | {"axis": [1, 3]}, "shape": (8, 4, 2, 3)}
    yield {"kwargs": virtual | {"renorm": True}, "shape": (8, 3)}
    for bounds in (None, CLIP):
        for training in (True, False, "tensor"):
            kwargs = plain | SET | {"renorm": True, "renorm_clipping": bounds, "renorm_momentum": 0.8}
            yield {"kwargs": kwargs, "shape": RANKS[4], "training": training, "steps": 4}
    losses = {"beta_regularizer": ["l2", 0.1], "gamma_regularizer": ["l2", 0.2]}
    yield {"kwargs": plain | SET | losses, "shape": RANKS[4]}
    yield {"kwargs": plain | {"adjustment": "double"}, "shape": RANKS[4]}
    yield {"kwargs": {"center": False, "scale": False}, "shape": RANKS[4]}
    yield {"kwargs": {"name": "a/b"}, "shape": RANKS[4]}
    yield {"kwargs": plain, "shape": RANKS[4], "dtype": "float16"}
    yield {"kwargs": plain, "shape": RANKS[2], "dtype": "float64"}
    yield {"kwargs": {}, "shape": (4, 5, 6, 4), "partitions": 2}


CASES = [
    {"name": str(number), "function": "layers", "steps": 2} | case for number, case in enumerate(grid())
]


@pytest.mark.parametrize("cases", [covering(5, CASES), pytest.param(CASES, marks=pytest.mark.sweep)])
def test_a_grid_of_programs_equals_the_original(cases, tmp_path):
    tf1_programs.assert_equal_to_the_original(cases, tmp_path)


def test_virtual_batches_are_strided_and_normalised_each_for_itself():
    x = reference.data((8, 3))
    with tf.Graph().as_default(), V1.Session() as session:
        y = compat.batch_normalization(tf.constant(x), virtual_batch_size=4, training=True)
        session.run(V1.global_variables_initializer())
        got = session.run(y)
    for part in (slice(0, 8, 2), slice(1, 8, 2)):
        want = reference.apply(x[part], *reference.moments(x[part]))
        np.testing.assert_allclose(got[part], want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"axis": 4}, ValueError, r"axis 4 is outside an input of rank 4 .* between -4 and 3\."),
        ({"axis": [1, 1]}, ValueError, r"none twice, received axis=\[1, 1\]"),
        (
            {"virtual_batch_size": 0},
            ValueError,
            r"^`virtual_batch_size` must be a positive integer .*: vir",
        ),
        (
            {"virtual_batch_size": 2, "axis": 0},
            ValueError,
            r"axis cannot include 0\. Received axis=\(0,\)",
        ),
        (
            {"virtual_batch_size": 2, "adjustment": lambda shape: (1.0, 0.0)},
            ValueError,
            "^When using `virtual_batch_size`, adjustment cannot be specified",
        ),
        (
            {"training": "yes"},
            TypeError,
            "^is_training must be a bool, .*, received 'yes'. Pass True where",
        ),
        (
            {"renorm": True, "renorm_clipping": {"max": 1.0}},
            ValueError,
            r"^Received invalid keys for `renorm_clipping` argument: max\. Supported values: rmax, rmin",
        ),
        ({"reuse": True, "name": "x"}, ValueError, "Variable x/gamma does not exist"),
    ],
)
def test_what_it_refuses(arguments, error, message):
    with tf.Graph().as_default() as graph:
        inputs = V1.placeholder(tf.float32, (2, 4, 5, 3))
        before = len(graph.get_operations())
        with pytest.raises(error, match=message):
            compat.batch_normalization(inputs, **arguments)
        if "reuse" not in arguments:
            assert len(graph.get_operations()) == before


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, r"^Input x:0 has undefined rank\. Give it one with set_shape\.$"),
        (
            (None, None),
            r"^Input has undefined `axis` dimension\. Received input with shape .* and axis=\(1,\)",
        ),
    ],
)
def test_inputs_that_say_too_little(shape, message):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
        compat.batch_normalization(V1.placeholder(tf.float32, shape, name="x"))


def test_constraints_are_set_on_the_variables():
    with tf.Graph().as_default():
        compat.batch_normalization(V1.placeholder(tf.float32, (2, 3)), beta_constraint=tf.nn.relu)
        gamma, beta = V1.trainable_variables()
        assert (gamma.constraint, beta.constraint) == (None, tf.nn.relu)


def test_on_a_keras_tensor_it_is_a_layer():
    keras.backend.clear_session()  # where Keras' numbers begin
    inputs = keras.Input((4, 5, 3))
    x = compat.batch_normalization(inputs, axis=-1, momentum=0.8, training=None, name="one/two")
    x = compat.batch_normalization(x, renorm=True, renorm_clipping={"rmax": 2.0}, training=None)
    model = keras.Model(inputs, compat.batch_normalization(x, fused=False))
    plain, renorm, frozen = model.layers[1:]
    assert (type(plain), plain.name, plain.decay, plain.unbiased) == (BatchNorm, "one_two", 0.8, True)
    assert (renorm.name, frozen.name) == ("batch_normalization", "batch_normalization_1")
    assert (type(renorm), renorm.rmax, renorm.rmin) == (BatchRenorm, 2.0, None)
    model(reference.data((4, 4, 5, 3)), training=True)
    assert np.any(plain.moving_mean)
    assert not np.any(frozen.moving_mean)  # the function's default is training=False
    assert not frozen.unbiased
    with pytest.raises(
        ValueError, match=r"^compat.batch_normalization on a Keras tensor .* has no virtual_batch_"
    ):
        compat.batch_normalization(inputs, virtual_batch_size=2)
