"""compat.batch_norm against the original, and in the places where the original never was."""

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
FIRST = {2: (8, 3), 3: (4, 3, 5), 4: (4, 3, 5, 6), 5: (4, 3, 2, 5, 6)}  # channels first
SET = {
    "param_initializers": {
        "gamma": ["constant", 1.5],
        "beta": ["constant", 0.5],
        "moving_mean": ["constant", 2.0],
        "moving_variance": ["constant", 3.0],
    }
}
LOSSES = {"param_regularizers": {"beta": ["l2", 0.1], "gamma": ["l2", 0.2]}}
CLIP = {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}


def grid():
    """Calls whose numbers the last release of contrib, tf_slim 1.1.0, shares with ours."""
    for shape in RANKS.values():
        for fused in (True, False):
            for updates in ("default", None, "custom"):
                kwargs = {"decay": 0.9, "scale": True, "fused": fused}
                kwargs |= {} if updates == "default" else {"updates_collections": updates}
                for training in (True, False, "tensor", "variable"):
                    yield {"kwargs": kwargs, "shape": shape, "training": training, "learning_rate": 0.05}
    for shape in FIRST.values():
        for fused in (True, False):
            for training in (True, False):
                kwargs = {"decay": 0.9, "scale": True, "fused": fused, "data_format": "NCHW"}
                yield {"kwargs": kwargs, "shape": shape, "training": training}
    for shape in (RANKS[2], RANKS[4]):
        plain = {"decay": 0.9, "scale": True, "fused": True}
        yield {"kwargs": plain, "shape": shape, "dtype": "float16"}
        yield {"kwargs": plain | {"fused": False}, "shape": shape, "dtype": "float64"}
        yield {"kwargs": plain | SET | LOSSES, "shape": shape}
        yield {"kwargs": plain | {"center": False, "activation_fn": "relu"}, "shape": shape}
        yield {
            "kwargs": plain
            | {"scale": False, "trainable": False, "fused": False, "updates_collections": None},
            "shape": shape,
        }
        for training in (True, "tensor"):
            case = {"shape": shape, "training": training}
            for updates in ({}, {"updates_collections": None}):
                yield case | {"kwargs": plain | {"zero_debias_moving_mean": True} | updates, "steps": 4}
                yield case | {"kwargs": plain | updates, "batch_weights": True}
            yield case | {"kwargs": plain | {"adjustment": "double"}}
            for bounds in (None, CLIP):
                renorm = {"renorm": True, "renorm_clipping": bounds, "renorm_decay": 0.8} | SET
                yield case | {"kwargs": plain | renorm, "steps": 4}
    yield {"kwargs": {"scale": True, "fused": True}, "shape": (4, 5, 6, 4), "partitions": 2}
    yield {
        "kwargs": {"scale": True},
        "shape": (4, 5, 6, 3),
        "static_shape": [None, None, None, 3],
        "training": False,
    }
    for collections in (["mine"], {"beta": ["b"], "moving_mean": ["mm"]}):
        kwargs = {"scale": True, "fused": True, "variables_collections": collections}
        yield {"kwargs": kwargs | {"outputs_collections": "outs", "scope": "top/bn"}, "shape": RANKS[4]}


def grid_of_unknown_sizes():
    for shape in RANKS.values():  # a batch, and other sizes, known only when the graph runs
        unknown = {"shape": shape, "static_shape": [None] * (len(shape) - 1) + [3]}
        yield unknown | {"kwargs": {"scale": True, "fused": True, "decay": 0.9}}
        yield unknown | {"kwargs": {"fused": False}, "training": "tensor"}
    unknown = {"shape": RANKS[4], "static_shape": [None, None, None, 3]}
    yield unknown | {"kwargs": {"decay": 0.9}, "batch_weights": True}
    yield unknown | {"kwargs": {"renorm": True, "decay": 0.9}, "steps": 4}
    yield unknown | {"kwargs": {"zero_debias_moving_mean": True, "fused": True}}


CASES = [
    {"name": str(number), "function": "contrib", "steps": 2} | case
    for number, case in enumerate((*grid(), *grid_of_unknown_sizes()))
]


@pytest.mark.parametrize("cases", [covering(5, CASES), pytest.param(CASES, marks=pytest.mark.sweep)])
def test_a_grid_of_programs_equals_the_original(cases, tmp_path):
    tf1_programs.assert_equal_to_the_original(cases, tmp_path)


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def placeholder(*shape):
    return V1.placeholder(tf.float32, shape, name="x")


def names(collection):
    return [item.name for item in V1.get_collection(collection)]


def test_the_updates_are_collected_and_not_run(graph):
    x = reference.data((16, 3))
    y = compat.batch_norm(tf.constant(x), decay=0.5)
    mean, variance = V1.moving_average_variables() or V1.global_variables()[-2:]
    with V1.Session() as session:
        session.run(V1.global_variables_initializer())
        session.run(y)
        np.testing.assert_array_equal(session.run(mean), np.zeros(3))
        session.run(V1.get_collection(V1.GraphKeys.UPDATE_OPS))
        expected = reference.train_step(x, 0, 1, 0.5)
        np.testing.assert_allclose(session.run(mean), expected[1], rtol=1e-5)
        np.testing.assert_allclose(session.run(variance), expected[2], rtol=1e-5)


@pytest.mark.parametrize(("fused", "unbiased"), [(None, False), (True, True), (False, False)])
@pytest.mark.parametrize("shape", [(16, 3), (4, 5, 6, 3)])
def test_the_variance_that_is_stored(graph, shape, fused, unbiased):
    x = reference.data(shape)
    compat.batch_norm(tf.constant(x), decay=0.5, fused=fused)
    with V1.Session() as session:
        session.run(V1.global_variables_initializer())
        session.run(V1.get_collection(V1.GraphKeys.UPDATE_OPS))
        expected = reference.train_step(x, 0, 1, 0.5, unbiased)[2]
        np.testing.assert_allclose(session.run(V1.global_variables()[-1]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{}, {"batch_weights": np.zeros(0)}, {"zero_debias_moving_mean": True}]
)
def test_an_empty_batch_changes_nothing(graph, arguments):
    y = compat.batch_norm(tf.zeros([0, 3]), decay=0.5, **arguments)
    with V1.Session() as session:
        session.run(V1.global_variables_initializer())
        before = session.run(V1.global_variables())
        session.run([y, V1.get_collection(V1.GraphKeys.UPDATE_OPS)])
        for old, new in zip(before, session.run(V1.global_variables()), strict=True):
            np.testing.assert_array_equal(old, new)


def test_operations_bear_the_names_that_graphs_are_searched_for(graph):
    outputs = compat.batch_norm(placeholder(8, 4, 4, 3))
    assert outputs.name == "BatchNorm/FusedBatchNormV3:0"
    outputs = compat.batch_norm(placeholder(8, 3), fused=False)
    assert outputs.name == "BatchNorm_1/batchnorm/add_1:0"
    assert names(V1.GraphKeys.UPDATE_OPS)[:2] == [
        f"BatchNorm/AssignMovingAvg{number}/AssignSubVariableOp" for number in ("", "_1")
    ]
    assert names(V1.GraphKeys.MODEL_VARIABLES)[:3] == [
        "BatchNorm/beta:0", "BatchNorm/moving_mean:0", "BatchNorm/moving_variance:0"
    ]  # fmt: skip
    assert compat.batch_norm(placeholder(8, 3), activation_fn=tf.nn.relu, scope="a").name == "a/Relu:0"


def test_renormalisation_is_computed_before_its_averages_are_updated(graph):
    outputs = compat.batch_norm(placeholder(8, 3), renorm=True)
    operations = [
        operation for operation in graph.get_operations() if operation.type == "AssignSubVariableOp"
    ]
    assert len(operations) == 4
    for operation in operations:
        before, todo = set(), [operation]
        while todo:
            current = todo.pop()
            if current.name not in before:
                before.add(current.name)
                todo += [*current.control_inputs, *(tensor.op for tensor in current.inputs)]
        assert outputs.op.name in before


@pytest.mark.parametrize("where", ["cond", "while", "map"])
def test_inside_the_control_flow_of_a_graph(graph, where):
    x, p = reference.data((4, 6, 3)), V1.placeholder_with_default(True, [])
    reuse = {"scope": "bn", "reuse": V1.AUTO_REUSE, "updates_collections": None, "decay": 0.5}

    def call(batch):
        return compat.batch_norm(batch, **reuse)

    call(tf.constant(x[0])) if where != "cond" else None
    if where == "cond":
        y = tf.cond(p, lambda: call(tf.constant(x[0])), lambda: tf.constant(x[0]))
    elif where == "while":
        body = lambda i, _: (i + 1, call(tf.constant(x)[i]))  # noqa: E731
        start = (0, tf.constant(x[0]))
        y = V1.while_loop(lambda i, _: i < 3, body, start, parallel_iterations=1)[1]
    else:
        y = tf.map_fn(call, tf.constant(x), parallel_iterations=1)[3]
    with V1.Session() as session:
        session.run(V1.global_variables_initializer())
        got, mean = session.run(y), session.run(V1.global_variables()[1])
    turns = {"cond": 1, "while": 3, "map": 4}[where]
    want = np.zeros(3)
    for batch in x[:turns]:
        want = 0.5 * want + 0.5 * reference.moments(batch)[0]
    np.testing.assert_allclose(mean, want, rtol=1e-5, atol=1e-6)
    last = x[turns - 1]
    np.testing.assert_allclose(got, reference.apply(last, *reference.moments(last)), atol=1e-5)


def test_reuse_shares_variables_and_updates_again(graph):
    compat.batch_norm(placeholder(8, 3), scope="bn")
    compat.batch_norm(placeholder(8, 3), scope="bn", reuse=True)
    assert len(V1.global_variables()) == 3
    assert len(V1.get_collection(V1.GraphKeys.UPDATE_OPS)) == 4
    with pytest.raises(ValueError, match="Variable bn/beta already exists, disallowed"):
        compat.batch_norm(placeholder(8, 3), scope="bn")
    with pytest.raises(ValueError, match="reuse=True cannot be used without a name_or_scope"):
        compat.batch_norm(placeholder(8, 3), reuse=True)


@pytest.mark.parametrize(
    ("shape", "arguments", "error", "message"),
    [
        ((8, 3), {"data_format": "NCWH"}, ValueError,
         r"^data_format has to be either NCHW or NHWC\. Received 'NCWH'\.$"),
        (None, {}, ValueError, r"^Inputs x:0 has undefined rank\. Give it one with set_shape\.$"),
        ((8, None), {}, ValueError,
         r"^Inputs x:0 has undefined channels dimension \(8, None\)\. Give axis -1 a size"),
        ((8, 3), {"renorm": True, "updates_collections": None}, ValueError,
         "^renorm is not supported with batch_weights, updates_collections or zero_debias"),
        ((8, 3), {"renorm": True, "renorm_clipping": {"max": 1.0}}, ValueError,
         r"^Received invalid keys for `renorm_clipping` argument: max\. Supported values"),
        ((8, 3), {"batch_weights": np.ones(7)}, ValueError, r"\(8,\) and \(7,\) are incompatible"),
        ((8, 3), {"is_training": None}, TypeError, "^is_training must be a bool, .*, received None"),
    ],
)  # fmt: skip
def test_what_it_refuses(graph, shape, arguments, error, message):
    inputs = V1.placeholder(tf.float32, shape, name="x")
    with pytest.raises(error, match=message):
        compat.batch_norm(inputs, **arguments)
    assert not V1.global_variables()


@pytest.mark.parametrize("function", ["batch_norm", "batch_normalization"])
def test_eager_tensors_outside_any_layer_are_refused(function):
    call = getattr(compat, function)
    message = (
        rf"compat\.{function} was called eagerly, outside any layer: .* Wrap the code in compat\.Var"
    )
    with pytest.raises(ValueError, match=message):
        call(tf.ones((2, 3)))
    with pytest.raises(
        ValueError, match=r"was called in a tf\.function, outside any layer: .* keras\.Input"
    ):
        tf.function(call)(tf.ones((2, 3)))


def test_wrap_function_owns_what_is_made_in_it():
    wrapped = V1.wrap_function(lambda x: compat.batch_norm(x, decay=0.5), [tf.TensorSpec((4, 3))])
    x = reference.data((4, 3))
    np.testing.assert_allclose(wrapped(tf.constant(x)), reference.train_step(x, 0, 1, 0.5)[0], atol=1e-5)


def test_on_a_keras_tensor_it_is_a_layer(tmp_path):
    keras.backend.clear_session()  # where Keras' numbers begin
    inputs = keras.Input((4, 4, 3))
    beta = {"beta": V1.constant_initializer(2.0)}
    x = compat.batch_norm(
        inputs, decay=0.9, activation_fn=tf.nn.relu, scope="conv1/BatchNorm", param_initializers=beta
    )
    x = compat.batch_norm(x, is_training=False, scale=True, fused=True)
    x = compat.batch_norm(
        x, renorm=True, renorm_clipping={"dmax": 1.0}, is_training=None, data_format="NCHW"
    )
    model = keras.Model(inputs, compat.batch_norm(x, trainable=False))
    first, _, second, third, fourth = model.layers[1:]
    assert (type(first), first.name, first.decay, first.scale) == (
        BatchNorm,
        "conv1_BatchNorm",
        0.9,
        False,
    )
    assert [layer.name for layer in (second, third, fourth)] == [
        "BatchNorm",
        "BatchNorm_1",
        "BatchNorm_2",
    ]
    assert (second.unbiased, second.scale, third.axis, third.dmax) == (True, True, 1, 1.0)
    assert type(third) is BatchRenorm
    np.testing.assert_array_equal(first.beta, [2.0] * 3)
    data = reference.data((8, 4, 4, 3))
    model.compile("sgd", "mse")
    model.fit(data, data, verbose=0)
    assert np.any(first.moving_mean)
    assert not np.any(second.moving_mean)  # frozen
    assert np.any(fourth.moving_mean)  # its statistics move,
    assert not np.any(fourth.beta)  # and its parameters do not
    assert first.beta not in second.trainable_variables
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(data), model(data), rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"reuse": True, "scope": "a"},
        {"batch_weights": np.ones(2)},
        {"zero_debias_moving_mean": True},
        {"adjustment": lambda shape: (1.0, 0.0)},
        {"variables_collections": "a"},
        {"outputs_collections": "a"},
    ],
)
def test_what_a_keras_layer_cannot_be_asked(arguments):
    name = next(key for key in arguments if key != "scope")
    message = rf"on a Keras tensor is a tfbn\.BatchNorm layer, which has no {name}\. Leave them out, or"
    with pytest.raises(ValueError, match=message):
        compat.batch_norm(keras.Input((3,)), **arguments)


def test_a_tensor_as_is_training_is_refused_on_a_keras_tensor():
    message = r"cannot take a tensor as is_training: .* model\(x, training=…\)"
    with pytest.raises(ValueError, match=message):
        compat.batch_norm(keras.Input((3,)), is_training=tf.constant(True))
