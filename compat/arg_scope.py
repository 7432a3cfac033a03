"""contrib's `arg_scope`: default arguments for functions, set from outside, for a while."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Scope = dict[str, dict[str, Any]]

_scopes: list[Scope] = [{}]  # the current one is last


class ScopedFunction:
    """A function whose default arguments an `arg_scope` can set; what `add_arg_scope` makes.

    tf_slim's `arg_scope` takes it, too: it knows functions by `_key_op`, and reading that enters the
    function there.
    """

    def __init__(self, function: Callable[..., Any], slim_name: str | None = None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._slim_name = slim_name
        self._key = f"{function.__module__}.{function.__qualname__}@{id(function):x}"
        self._entered_in: object = None

    @property
    def _key_op(self) -> str:
        slim = _loaded_slim()
        if slim is not None and self._entered_in is not slim:
            self._entered_in = slim
            if self._slim_name is not None:  # one key for both, so that a scope for one is for both
                self._key = slim.arg_scope_func_key(getattr(slim, self._slim_name))
            else:
                # tf_slim looks at the code and the defaults of a plain function.
                code, defaults = self._function.__code__, self._function.__defaults__
                plain = types.FunctionType(code, {}, argdefs=defaults)
                plain._key_op = self._key
                slim.add_arg_scope(plain)
        return self._key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **(current_arg_scope().get(self._key_op, {}) | kwargs))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<{self._function!r} with arg_scope>"


def add_arg_scope(function: Callable[..., Any]) -> ScopedFunction:
    """Decorator: the function's defaults can be set by `arg_scope`, this one and tf_slim's.

    An argument given in the call wins over the scope, the inner scope over the outer.
    """
    return ScopedFunction(function)


def current_arg_scope() -> Scope:
    """The defaults in force: `{key of function: {argument: value}}`."""
    slim = _loaded_slim()
    # A scope that was entered before tf_slim was imported is the outer one.
    return _scopes[-1] if slim is None else _scopes[-1] | slim.current_arg_scope()


def has_arg_scope(function: Callable[..., Any]) -> bool:
    """Whether `arg_scope` can set arguments of the function."""
    slim = _loaded_slim()
    return isinstance(function, ScopedFunction) or (slim is not None and slim.has_arg_scope(function))


@contextmanager
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
    """
    if not isinstance(list_ops_or_scope, dict):
        _check(list_ops_or_scope, kwargs)
    elif kwargs:
        raise ValueError(
            "When attempting to re-use a scope by supplying a dictionary, kwargs must be empty, "
            f"received {', '.join(kwargs)}. Nest a second arg_scope in it to add arguments."
        )
    slim = _loaded_slim()
    if slim is not None:
        with slim.arg_scope(list_ops_or_scope, **kwargs) as scope:
            yield scope
        return
    if isinstance(list_ops_or_scope, dict):
        scope = dict(list_ops_or_scope)
    else:
        keys = [function._key_op for function in list_ops_or_scope]
        scope = _scopes[-1] | {key: _scopes[-1].get(key, {}) | kwargs for key in keys}
    _scopes.append(scope)
    try:
        yield scope
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
        if isinstance(function, ScopedFunction):
            known = inspect.signature(function).parameters
            open_ended = any(one.kind is one.VAR_KEYWORD for one in known.values())
            unknown = [name for name in arguments if name not in known]
            if unknown and not open_ended:
                raise TypeError(
                    f"{function.__name__} has no argument {', '.join(map(repr, unknown))}. Choose among "
                    f"{', '.join(known)}."
                )


def _loaded_slim() -> Any:
    """tf_slim where it is loaded; `None` where it is not."""
    slim = sys.modules.get("tf_slim")
    return slim if hasattr(slim, "current_arg_scope") else None  # not while it is being imported
