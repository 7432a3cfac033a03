"""contrib's `arg_scope`: default arguments for functions, set from outside, for a while."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Scope = dict[str, dict[str, Any]]

_scopes: list[Scope] = [{}]  # the current one is last


class ScopedFunction:
    """A function whose default arguments an `arg_scope` can set; what `add_arg_scope` makes.

    tf_slim's `arg_scope` takes it, too: tf_slim identifies functions by `_key_op`, and reading that
    attribute registers this one with tf_slim.

    Args:
        function: what is called.
        slim_name: tf_slim's function that shares its scopes.
        check: what is said of the arguments by position before.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        slim_name: str | None = None,
        check: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._check = check
        self._function = function
        self._slim_name = slim_name
        # A function that tf_slim decorated keeps its key, so that scopes made with it still apply.
        self._own_key = getattr(function, "_key_op", f"{function!r}@{id(function):x}")
        self._key = self._own_key
        self._entered_in: object = None

    @property
    def _key_op(self) -> str:
        slim = _loaded_slim()
        if slim is not None and self._entered_in is not slim:
            self._entered_in = slim
            if self._slim_name is not None:  # one key for both, so that a scope for one is for both
                self._key = slim.arg_scope_func_key(getattr(slim, self._slim_name))
            elif not hasattr(self._function, "_key_op"):
                slim.add_arg_scope(_plain(self._function, self._key))
        return self._key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._check is not None:
            self._check(args)
        scope, key = current_arg_scope(), self._key_op
        # A scope from before tf_slim was loaded has our own key, and one inside it may have tf_slim's.
        defaults = scope.get(self._own_key, {}) | scope.get(key, {})
        return self._function(*args, **(defaults | kwargs))

    # Read by tf_slim's own `add_arg_scope` where it is applied to a ScopedFunction.
    @property
    def __defaults__(self) -> tuple[Any, ...] | None:
        return self._function.__defaults__

    @property
    def __code__(self) -> types.CodeType:
        return self._function.__code__

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        return self._function.__qualname__  # copied and pickled by name, as functions are

    def __repr__(self) -> str:
        return f"<{self._function!r} with arg_scope>"


def _plain(function: Callable[..., Any], key: str) -> Any:
    """A plain function with the same default arguments, which are all that tf_slim reads of it."""
    code = getattr(function, "__code__", None)
    plain: Any = lambda: None  # noqa: E731 (for a class, a partial, a built-in function)
    if code is not None:
        defaults, closure = function.__defaults__, function.__closure__
        plain = types.FunctionType(code, {}, argdefs=defaults, closure=closure)
    plain._key_op = key
    return plain


def add_arg_scope(function: Callable[..., Any]) -> ScopedFunction:
    """Decorator: the function's defaults can be set by `arg_scope`, this one and tf_slim's.

    An argument given in the call wins over the scope, the inner scope over the outer.

    >>> @add_arg_scope
    ... def times(x, factor=2):
    ...     return factor * x
    >>> with arg_scope([times], factor=3):
    ...     print(times(5), times(5, factor=4))
    15 20
    """
    return function if isinstance(function, ScopedFunction) else ScopedFunction(function)


def current_arg_scope() -> Scope:
    """The defaults in force: `{key of function: {argument: value}}`."""
    slim = _loaded_slim()
    scope = dict(_scopes[-1])
    # A scope that was entered before tf_slim was imported is the outer one.
    for key, arguments in (slim.current_arg_scope() if slim is not None else {}).items():
        scope[key] = scope.get(key, {}) | arguments
    return scope


def has_arg_scope(function: Callable[..., Any]) -> bool:
    """Whether `arg_scope` can set arguments of the function."""
    slim = _loaded_slim()
    own = isinstance(getattr(function, "__func__", function), ScopedFunction)  # or its bound method
    return own or (slim is not None and slim.has_arg_scope(function))


@contextlib.contextmanager
def arg_scope(list_ops_or_scope: Sequence[Any] | Scope, **kwargs: Any) -> Iterator[Scope]:
    """Set default arguments of functions while the context lasts (contrib's and tf_slim's `arg_scope`).

    Where tf_slim is loaded its stack of scopes is used, so that both kinds nest in each other.

    Args:
        list_ops_or_scope: functions decorated with `add_arg_scope` (tf_slim's too), or a scope that an
            `arg_scope` gave, to use it again.
        **kwargs: the defaults, for every one of the functions.

    Yields:
        The defaults in force, which another `arg_scope` takes.

    Raises:
        TypeError: neither a list (or tuple) nor a scope; an argument that a function does not have.
        ValueError: a function that is not decorated; arguments together with a scope.

    >>> import keras
    >>> from tfbn import compat
    >>> x = keras.Input((4,))
    >>> with compat.arg_scope([compat.batch_norm], decay=0.9):
    ...     model = keras.Model(x, compat.batch_norm(x))
    >>> model.layers[1].decay
    0.9
    """
    if not isinstance(list_ops_or_scope, dict):
        _check(list_ops_or_scope, kwargs)
    elif kwargs:
        raise ValueError(
            "When attempting to re-use a scope by supplying a dictionary, kwargs must be empty, "
            f"received {', '.join(kwargs)}. Nest a second arg_scope in it to add arguments."
        )
    if isinstance(list_ops_or_scope, dict):
        scope = dict(list_ops_or_scope)
    else:
        scope = current_arg_scope()
        for key in [function._key_op for function in list_ops_or_scope]:
            scope[key] = scope.get(key, {}) | kwargs
    slim = _loaded_slim()
    # With tf_slim its stack holds all that is in force, and ours adds nothing to it.
    _scopes.append(scope if slim is None else {})
    try:
        with contextlib.nullcontext(scope) if slim is None else slim.arg_scope(scope) as entered:
            yield entered
    finally:
        _scopes.pop()


def _check(functions: Any, arguments: dict[str, Any]) -> None:
    if not isinstance(functions, (list, tuple)):
        raise TypeError(
            "arg_scope needs a list of functions, or a scope that another arg_scope gave, received "
            f"{functions!r}. Write arg_scope([function], …)."
        )
    for function in functions:
        if not has_arg_scope(function):
            raise ValueError(
                f"{function!r} is not decorated with @add_arg_scope. Decorate it with "
                "compat.add_arg_scope, or pass its arguments in the call."
            )
        known = _arguments(function)
        unknown = [name for name in arguments if known is not None and name not in known]
        if known is not None and unknown:
            raise TypeError(
                f"{function!r} has no argument {', '.join(map(repr, unknown))}. Choose among "
                f"{', '.join(known)}."
            )


def _arguments(function: Any) -> list[str] | None:
    """The names that a decorated function takes; `None` if it takes any or does not tell."""
    if not isinstance(getattr(function, "__func__", function), ScopedFunction):
        return None  # tf_slim's own finds out when it is called
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some built-in functions
        return None
    kinds = {parameter.kind for parameter in parameters.values()}
    return None if inspect.Parameter.VAR_KEYWORD in kinds else list(parameters)


def _loaded_slim() -> Any:
    """tf_slim where it is loaded; `None` where it is not."""
    slim = sys.modules.get("tf_slim")
    return slim if hasattr(slim, "current_arg_scope") else None  # not while it is being imported
