"""Programs with `tf.train.ExponentialMovingAverage`, as layers, and in sessions of TensorFlow 1."""

import numpy as np
import tensorflow as tf

import reference
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
EMA = tf1.train.ExponentialMovingAverage
X = reference.data((16, 4), seed=3)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # float32, four steps, in another order


def weight(name="w", shape=(4, 4)):
    """Starts from the same numbers in every process."""
    values = reference.data(shape, seed=7)
    return tf1.get_variable(name, shape, initializer=tf1.constant_initializer(values))


def run_as_update(*operations):
    for operation in operations:
        tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, operation)


def by_hand(x, is_training, zero_debias=False, num_updates=None, scope="bn"):
    """Applied outside of the conditional that reads, as pointnet's."""
    with tf1.variable_scope(scope):
        mean, variance = tf.nn.moments(x @ weight(), [0], name="moments")
        ema = EMA(0.8, num_updates, zero_debias)
        applied = tf.cond(is_training, lambda: ema.apply([mean, variance]), tf.no_op)

        def of_batch():
            with tf.control_dependencies([applied]):
                return tf.identity(mean), tf.identity(variance)

        kept = tf.cond(is_training, of_batch, lambda: (ema.average(mean), ema.average(variance)))
        return tf.nn.batch_normalization(x @ weight_again(), *kept, None, None, 1e-3)


def weight_again():
    with tf1.variable_scope(tf1.get_variable_scope(), reuse=True):
        return weight()


def without_bias(x, is_training):
    return by_hand(x, is_training, zero_debias=True)


def faster_at_first(x, is_training):
    step = tf1.train.get_or_create_global_step()
    assert tf1.train.get_global_step() is step
    y = by_hand(x, is_training, zero_debias=True, num_updates=step)
    with tf.control_dependencies([y]):
        run_as_update(tf1.assign_add(step, 1))
    return y


def in_branch(x, is_training):
    """Applied inside the branch, also to what is computed there; with a moment from outside."""
    with tf1.variable_scope("net"), tf1.variable_scope(None, "bn"):
        ema = EMA(0.5, zero_debias=True, name="Averages")
        mean = tf.reduce_mean(x, 0)

        def of_batch():
            largest = tf.reduce_max(x, 0)
            with tf.control_dependencies([ema.apply([mean, largest])]):
                return tf.identity(mean)

        return x - tf.cond(is_training, of_batch, lambda: ema.average(mean))


def weights_kept(x, is_training):
    """Of all weights, which an update changes; read by a getter of one's own."""
    ema = EMA(0.7, zero_debias=True)  # which variables need not
    with tf1.variable_scope("net"):
        y = x @ weight()
    assert tf1.trainable_variables()[0].op.name == "net/w"
    with tf.control_dependencies([y]):
        run_as_update(tf1.assign_sub(tf1.trainable_variables()[0], tf.ones([4, 4]) / 3))
    with tf.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
        run_as_update(ema.apply())

    def averaged(getter, name, *args, **kwargs):
        return ema.average(getter(name, *args, **kwargs))

    with tf1.variable_scope("net", reuse=True, custom_getter=averaged):
        kept = x @ weight()
    return tf.cond(is_training, lambda: y, lambda: kept)


def several(x, is_training):
    """Two averages of the same tensor, one applied twice, one never run; a scope that is used twice."""
    outputs = []
    for _ in range(2):
        with tf1.variable_scope("shared", reuse=tf1.AUTO_REUSE):
            y = x @ weight()
            mean = tf.reduce_mean(y, 0, name="mean")
            one, other, idle = EMA(0.9), EMA(0.6, zero_debias=True), EMA(0.5, name="Idle")
            run_as_update(one.apply([mean]))
            with tf.control_dependencies(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)):
                run_as_update(one.apply([mean]), other.apply([mean]))
            idle.apply([mean])
            kept = [each.average(mean) for each in (one, other, idle)]
            outputs.append(y - tf.add_n([tf.convert_to_tensor(each) for each in kept]))
    return tf.cond(is_training, lambda: x, lambda: tf.concat(outputs, 0))


def of_trained_weights(x, is_training):
    y, ema = x @ weight(), EMA(0.7)
    run_as_update(ema.apply(tf1.trainable_variables()))
    return y


PROGRAMS = (by_hand, without_bias, faster_at_first, in_branch, weights_kept, several)


class Session:
    """A program as TensorFlow 1 ran it, with its control flow."""

    def __init__(self, code):
        tf1.disable_control_flow_v2()
        try:
            with tf.Graph().as_default():
                self.x, self.is_training = tf1.placeholder(tf.float32, X.shape), tf1.placeholder(tf.bool)
                with tf1.variable_scope(tf1.get_variable_scope(), use_resource=True):
                    self.outputs = code(self.x, self.is_training)
                self.updates = tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)
                self.variables = {each.op.name: each for each in tf1.global_variables()}
                self.saver, self.session = tf1.train.Saver(), tf1.Session()
                self.session.run(tf1.global_variables_initializer())
        finally:
            tf1.enable_control_flow_v2()

    def __call__(self, x, training):
        fetches = [self.outputs, self.updates if training else []]
        return self.session.run(fetches, {self.x: x, self.is_training: training})[0]

    def check(self, layer):
        values = self.session.run(self.variables)
        got = {name: variable.numpy() for name, variable in layer.variables_by_name.items()}
        assert got.keys() == values.keys()
        for name, value in values.items():
            np.testing.assert_allclose(got[name], value, err_msg=name, **TOLERANCE)


def layer_of(code):
    return VariableScopeLayer(lambda x, is_training: code(x, tf.constant(is_training)))
