"""compat.arg_scope, with tf_slim in the process and without, and in one stack with tf_slim's own."""

import copy
import functools
import inspect
import pickle
import sys

import pytest
import tensorflow as tf
import tf_slim

from tfbn import compat
from tfbn.compat import add_arg_scope, arg_scope

tf1 = tf.compat.v1


@add_arg_scope
def ours(a, b=1, *, c=2):
    """Documented."""
    return a, b, c


@add_arg_scope
def other(a=0, b=0):
    return a, b


@tf_slim.add_arg_scope
def theirs(a, b=1, c=2):
    return a, b, c


def undecorated(a=1):
    return a


@pytest.fixture(params=["tf_slim loaded", "tf_slim not loaded"])
def anywhere(request, monkeypatch):
    """With tf_slim in the process, and as if nobody had imported it."""
    if request.param == "tf_slim not loaded":
        monkeypatch.delitem(sys.modules, "tf_slim")


pytestmark = pytest.mark.usefixtures("anywhere")
beside_slim = pytest.mark.parametrize("anywhere", ["tf_slim loaded"], indirect=True)


def test_the_call_beats_the_inner_scope_and_that_the_outer_by_keyword():
    with arg_scope([ours, other], b=10), arg_scope((ours,), a=5, c=20):
        assert ours() == (5, 10, 20)
        assert other() == (0, 10)
        with arg_scope([ours], b=30):
            assert ours(c=None) == (5, 30, None)
            assert other() == (0, 10)
        assert ours(a=6, b=7) == (6, 7, 20)
        with pytest.raises(TypeError, match="multiple values for argument 'a'"):
            ours(1)
    assert ours(0) == (0, 1, 2)
    assert other() == (0, 0)


def test_a_saved_scope_replaces_the_current_one():
    with arg_scope([ours], b=10) as outer, arg_scope([ours], c=20) as saved:
        assert ours(0) == (0, 10, 20)
    assert ours(0) == (0, 1, 2)
    with arg_scope([other], a=7), arg_scope([ours], b=11):
        with arg_scope(saved) as again:
            assert ours(0) == (0, 10, 20)
            assert other() == (0, 0)
            with arg_scope([ours], b=12) as inner:
                assert ours(0) == (0, 12, 20)
            with arg_scope({}):
                assert ours(0) == (0, 1, 2)
        assert (ours(0), other()) == ((0, 11, 2), (7, 0))
    assert again == saved
    for scope, expected in ((outer, (0, 10, 2)), (saved, (0, 10, 20)), (inner, (0, 12, 20))):
        with arg_scope(scope):  # what was nested in them has not changed them
            assert ours(0) == expected


def error_of(kind, *args, **kwargs):
    with pytest.raises(kind) as caught, arg_scope(*args, **kwargs):
        pass
    return str(caught.value)


def test_errors_say_what_was_received_and_what_to_do():
    assert error_of(TypeError, ours, b=1) == (
        "arg_scope needs a list of functions, or a scope that another arg_scope gave, received "
        f"{ours!r}. Write arg_scope([function], …)."
    )
    assert error_of(ValueError, {}, b=1, c=2) == (
        "When attempting to re-use a scope by supplying a dictionary, kwargs must be empty, received "
        "b, c. Nest a second arg_scope in it to add arguments."
    )
    assert error_of(ValueError, [ours, undecorated], a=1) == (
        f"{undecorated!r} is not decorated with @add_arg_scope. Decorate it with compat.add_arg_scope, "
        "or pass its arguments in the call."
    )
    assert error_of(TypeError, [ours], b=1, d=2, e=3) == (
        f"{ours!r} has no argument 'd', 'e'. Choose among a, b, c."
    )
    part = add_arg_scope(functools.partial(undecorated, a=2))
    assert error_of(TypeError, [part], d=2) == f"{part!r} has no argument 'd'. Choose among a."


def test_any_argument_for_a_function_that_takes_any():
    @add_arg_scope
    def anything(**kwargs):
        return kwargs

    with arg_scope([anything], x=1):
        assert anything(y=2) == {"x": 1, "y": 2}


@pytest.mark.parametrize("wrong", [[undecorated], ours, "ours", {ours}])
def test_the_surrounding_scope_survives_an_error(wrong):
    with arg_scope([ours], b=10):
        error_of((TypeError, ValueError), wrong, b=1)
        assert ours(0) == (0, 10, 2)  # tf_slim's own drops it here
        with pytest.raises(ZeroDivisionError), arg_scope([ours], b=11):
            1 / 0  # noqa: B018
        assert ours(0) == (0, 10, 2)
    assert ours(0) == (0, 1, 2)


class Base:
    def method(self, a=1, b=2):
        return a, b


class Decorated(Base):
    factor = 2

    @add_arg_scope
    def method(self, a=1, b=2):
        return tuple(self.factor * value for value in super().method(a, b))  # super() makes it a closure

    @staticmethod
    @add_arg_scope
    def static(a=1):
        return a


def test_methods():
    instance = Decorated()
    for of in (Decorated.method, instance.method):
        with arg_scope([of], a=10):
            assert instance.method(b=4) == (20, 8)
            assert Decorated.method(instance) == (20, 4)
            assert "no argument 'd'" in error_of(TypeError, [of], d=1)
    with arg_scope([Decorated.static], a=3):
        assert instance.static() == 3
    assert instance.method() == (2, 4)


def test_it_decorates_functions_and_nests_in_itself():
    @arg_scope([ours], b=10)
    def code(depth):
        return ours(0) if not depth else code(depth - 1)

    assert code(3) == (0, 10, 2)
    assert ours(0) == (0, 1, 2)


def test_a_decorated_function_stays_itself():
    plain = ours.__wrapped__
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        assert getattr(ours, name) == getattr(plain, name)
    assert inspect.signature(ours) == inspect.signature(plain)
    assert add_arg_scope(ours) is ours
    assert copy.deepcopy({"normalizer_fn": compat.batch_norm})["normalizer_fn"] is compat.batch_norm
    assert pickle.loads(pickle.dumps(compat.batch_norm)) is compat.batch_norm


@pytest.mark.parametrize("function", [functools.partial(undecorated), Base, dict])
def test_whatever_can_be_called_can_be_decorated(function):
    decorated = add_arg_scope(function)
    with arg_scope([decorated]):
        assert type(decorated()) is type(function())


@beside_slim
def test_each_scope_takes_the_other_ones_functions():
    class Local:
        @add_arg_scope
        def method(self, a=1):
            return self and a

    with tf_slim.arg_scope([ours, theirs], b=10), tf_slim.arg_scope([Local.method], a=3):
        assert (ours(0), theirs(0), Local().method()) == ((0, 10, 2), (0, 10, 2), 3)
        with arg_scope([theirs, ours], c=20):
            assert (ours(0), theirs(0)) == ((0, 10, 20), (0, 10, 20))
            with tf_slim.arg_scope([ours, theirs], b=11) as saved:
                assert (ours(0, c=5), theirs(0, c=5)) == ((0, 11, 5), (0, 11, 5))
        assert (ours(0), theirs(0)) == ((0, 10, 2), (0, 10, 2))
    for either in (arg_scope, tf_slim.arg_scope):
        with either(saved):
            assert (ours(0), theirs(0)) == ((0, 11, 20), (0, 11, 20))
        for replacing in (arg_scope, tf_slim.arg_scope):
            with either([ours, theirs], b=1.5), replacing({}):
                assert ours(0) == theirs(0) == (0, 1, 2)
    assert tf_slim.current_arg_scope() == {}
    twice = add_arg_scope(theirs)
    with tf_slim.arg_scope([twice], b=10):
        assert (theirs(0), twice(0)) == ((0, 10, 2), (0, 10, 2))
    assert tf_slim.arg_scoped_arguments(other) == ("a", "b")
    for function in (functools.partial(undecorated), dict, Base):
        assert tf_slim.has_arg_scope(add_arg_scope(function))


@beside_slim
def test_tf_slims_decorator_takes_what_ours_has_decorated():
    """Old code decorates every function of its own once more."""
    for function in (compat.batch_norm, ours):
        again = tf_slim.add_arg_scope(function)
        assert tf_slim.arg_scoped_arguments(again) == tf_slim.arg_scoped_arguments(function)
    with tf_slim.arg_scope([again], b=10):
        assert (again(0), ours(0)) == ((0, 10, 2), (0, 10, 2))


@beside_slim
@pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")
def test_layers_of_tf_slim():
    with tf.Graph().as_default():
        x = tf.zeros([2, 8, 8, 3])
        with arg_scope([tf_slim.conv2d, tf_slim.max_pool2d], stride=2, padding="VALID") as saved:
            assert tf_slim.conv2d(x, 4, 3).shape == (2, 3, 3, 4)
            assert tf_slim.max_pool2d(x, 2, stride=1).shape == (2, 7, 7, 3)
        with tf_slim.arg_scope(saved):
            assert tf_slim.convolution2d(x, 4, 3, padding="SAME").shape == (2, 4, 4, 4)


def test_one_scope_for_this_batch_norm_and_tf_slims(anywhere):
    def variables(**kwargs):
        with tf.Graph().as_default():
            compat.batch_norm(tf.zeros([2, 3]), **kwargs)
            return [variable.op.name for variable in tf1.trainable_variables()]

    either = [compat.batch_norm] + [tf_slim.batch_norm] * ("tf_slim" in sys.modules)
    for function in either:
        with arg_scope([function], scale=True, center=False, scope="mine"):
            assert variables() == ["mine/gamma"]
            assert variables(scale=False) == []
        assert variables() == ["BatchNorm/beta"]


@pytest.mark.parametrize("anywhere", ["tf_slim not loaded"], indirect=True)
def test_scopes_from_before_tf_slim_was_loaded(monkeypatch):
    # Not compat.batch_norm itself, which may have met tf_slim before.
    batch_norm = type(compat.batch_norm)(compat.batch_norm.__wrapped__, slim_name="batch_norm")

    def trainable():
        with tf.Graph().as_default():
            batch_norm(tf.zeros([2, 3]))
            return [variable.op.name for variable in tf1.trainable_variables()]

    own = add_arg_scope(lambda a=1, b=2: (a, b))
    with arg_scope([own, other], a=10), arg_scope([batch_norm], scale=True) as saved:
        monkeypatch.setitem(sys.modules, "tf_slim", tf_slim)
        assert (own(), other()) == ((10, 2), (10, 0))
        for either in (arg_scope, tf_slim.arg_scope):
            with either([own, other], b=20), either([batch_norm], center=False) as inner:
                assert (own(), other()) == ((10, 20), (10, 20))
                assert trainable() == ["BatchNorm/gamma"]
        with arg_scope({}):
            assert own() == (1, 2)
            assert trainable() == ["BatchNorm/beta"]
        with arg_scope([other], b=3) as both:
            assert other() == (10, 3)
    assert own() == (1, 2)
    assert trainable() == ["BatchNorm/beta"]
    with tf_slim.arg_scope(saved):
        assert own() == (10, 2)
        assert trainable() == ["BatchNorm/beta", "BatchNorm/gamma"]
        with arg_scope([tf_slim.batch_norm], center=False):
            assert trainable() == ["BatchNorm/gamma"]
    with arg_scope(both):  # has the outer ones in it
        assert (own(), other()) == ((10, 2), (10, 3))
    assert isinstance(inner, dict)
