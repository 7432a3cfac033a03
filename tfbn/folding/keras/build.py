"""Fold a Keras model: read it, plan, compute every changed layer, and only then build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ...batch_norms import batch_norms, excluded_batch_norms, layer_paths
from ...cloning import Adapt, CloneAction, check_built, rebuild
from ...copying import like
from ...declared_graph import goes_by_steps, has_readable_graph
from ...opening import CannotOpenError, opened
from ...recording import inside_of
from ..core.affine import CannotFoldError
from ..core.graph import Call, Graph, Op
from ..core.kernel_arithmetic import ScaledKernel, round_to
from ..core.plan import Plan, make_plan
from ..core.targets import PendingFold
from ..fused_wrongly import fused_wrongly
from ..report import FoldEntry, FoldReport
from .precision import check_fit, floating_policy, with_policy
from .read import read, tied
from .tables import FOLD_TARGETS
from .targets import cannot_be_made_anew, named_weights, own_configuration

HIDDEN = (
    "it is inside a layer whose graph Keras does not show; tfbn.export(model, path) folds it in "
    "TensorFlow's graph"
)
NEVER_CALLED = "nothing calls it at inference"
STEPS_WHOLE = (
    "is given a mask, more than one tensor or one of another type, so that it is not entered; call its "
    "layers in the model itself"
)


def fold(model: keras.Model, dtype: str | None = None) -> tuple[keras.Model, FoldReport]:
    """Remove the batch norms that can be removed exactly (Algorithm 2, line 11).

    At inference a batch norm is `scale · x + offset` per channel. It is moved backwards or forwards
    through the model, across what commutes with it (sums, concatenations, pooling, reshaping, ReLU
    where the scale is positive and there is no offset, …), to Dense layers and convolutions of every
    kind, whose kernels and biases take it up: computed in float64 and rounded once. Ours and Keras'
    own fold alike, in nested models too; all else is copied with its weights.

    A batch norm that cannot be removed is kept, merged with others where they meet; it is already one
    multiply-add. A `tfbn.BatchNorm` is kept, too, where only a layer behind it could take it up and its
    inputs are far from 0 beside their deviation: it takes the mean off first, and that layer, in float32
    or less, would lose their digits.

    A subclass with a `call` of its own is a batch norm if it was declared one
    (`tfbn.batch_norm_at_inference`).

    TimeDistributed is entered, and so is every custom layer and subclassed model that has a batch norm
    inside and calls Keras layers and operations in its `call`: in the result nested Functional models
    take their place, with the same names. A layer that cannot be copied is used as it is.

    The result is for inference: it equals the given model at `training=False`, not in training.

    Args:
        model: a built model. It is not changed. One with a `call` of its own is read for one tensor, of
            its `input_dtype`, which is float32 as a rule.
        dtype: a Keras dtype policy for all layers of the result, such as `"float32"` for a model whose
            weights are float16, or `"float16"`: the weights, folded in float64, are then rounded once
            to its variable type. Inputs keep their types. By default each layer keeps its policy.

    Returns:
        A new, uncompiled model, and the `FoldReport`, which names the layers that the two models share,
        if there are any.

    Raises:
        TypeError: no Keras model, or a subclassed one whose graph cannot be read.
        ValueError: not built yet; a layer that is called with an argument that has no configuration; a
            dtype that is no floating-point policy, or too narrow for a weight;
            with a dtype, a layer without a configuration to copy it by.

    >>> import tfbn
    >>> layers = [keras.Input((4,)), keras.layers.Dense(2, name="dense"), tfbn.BatchNorm(name="bn")]
    >>> folded, report = tfbn.fold(keras.Sequential(layers))
    >>> print(report)
    1 of 1 batch norms folded
      bn -> dense
    """
    check_built(model, "fold", "fold")
    policy = None if dtype is None else floating_policy(dtype)

    def adapt(config: dict[str, Any]) -> dict[str, Any]:
        return config if policy is None else with_policy(config, policy)

    try:
        with opened(model) as (shown, closed):
            graph = read(shown)
            _leave_those_inside(graph)
            plan, written = _plan(graph, adapt)
            # A layer that is shared would keep its types.
            folded, clones = _build(shown, plan, written, adapt, may_share=policy is None)
    except CannotOpenError as reason:
        raise _unreadable(model, reason) from reason
    if policy is not None:
        for path, layer in layer_paths(model).items():
            if id(layer) in clones:
                check_fit(path, layer, clones[id(layer)])
    return folded, _report(model, plan, closed | _not_entered(graph), clones)


def _leave_those_inside(graph: Graph) -> None:
    """Let no batch norm go that is inside a layer which another call leaves whole, too."""
    called = (call.op.origin for call in graph.calls)
    whole = [
        layer
        for layer in dict.fromkeys(called)
        if isinstance(layer, keras.layers.Layer) and not has_readable_graph(layer)  # which is entered
    ]
    inside = {id(layer) for outer in whole for layer in layer_paths(outer).values()}
    for call in graph.calls:
        if id(call.op.origin) in inside:
            call.op.normalization = None


def _not_entered(graph: Graph) -> dict[int, str]:
    """Layers that go by steps and are called whole, by `id`, and why what is inside them stays."""
    called = (call.op.origin for call in graph.calls)
    return {id(layer): f"{inside_of(layer)}{STEPS_WHOLE}" for layer in called if goes_by_steps(layer)}


def _plan(graph: Graph, adapt: Adapt) -> tuple[Plan, dict[Op, keras.layers.Layer]]:
    """A plan that every layer in it can follow, and these layers with all that they take up."""
    excluded = tied(graph)
    while True:
        plan = make_plan(graph, excluded)
        if wrong := fused_wrongly(graph, plan, _has_bias, _slope):
            excluded |= wrong
            continue
        written: dict[Op, keras.layers.Layer] = {}
        for op in dict.fromkeys(call.op for call in graph.calls):
            if op not in plan.pending or op in plan.into:  # or it is a batch norm that goes itself
                continue
            try:
                written[op] = _written(op.origin, plan.pending[op], adapt)
            except CannotFoldError as reason:
                excluded[op] = str(reason)
                break
        else:
            return plan, written


def _has_bias(op: Op) -> bool | None:
    layer = op.origin
    convolution = isinstance(layer, (keras.layers.Conv2D, keras.layers.SeparableConv2D))
    return bool(layer.use_bias) if convolution else None


def _slope(call: Call) -> float | None:
    """Of a leaky ReLU, a layer or an operation; 0 is a ReLU."""
    slope = getattr(call.op.origin, "negative_slope", None)
    return None if slope is None or np.ndim(slope) or not slope else float(slope)


def _build(
    model: keras.Model,
    plan: Plan,
    written: Mapping[Op, keras.layers.Layer],
    adapt: Adapt,
    may_share: bool,
) -> tuple[keras.Model, dict[int, keras.layers.Layer]]:
    replacements: dict[int, keras.layers.Layer | CloneAction] = {
        **{id(op.origin): layer for op, layer in written.items()},
        **{id(op.origin): CloneAction.SKIP for op in plan.into},
    }
    return rebuild(
        model,
        lambda layer: replacements.get(id(layer), CloneAction.COPY),
        adapt,
        may_share,
        for_inference=True,
    )


def _written(layer: keras.layers.Layer, pending: PendingFold, adapt: Adapt) -> keras.layers.Layer:
    """A layer that has taken up a map; CannotFoldError if its types cannot hold the new numbers."""
    written = FOLD_TARGETS[type(layer)].write(layer, pending)
    config = adapt(own_configuration(layer) | written.config)
    try:
        new = like(layer, config)
    except Exception as error:  # of the user's own objects inside it, which Keras may not read again
        raise cannot_be_made_anew(layer, error) from error

    def check(name: str, value: np.ndarray, dtype: str) -> None:
        value = value if value.dtype == dtype else round_to(value, dtype)
        if not np.isfinite(value).all():
            raise CannotFoldError(f"the folded {name} of {layer.name!r} is not finite in {dtype}")

    for name, number in written.config.items():
        if not isinstance(number, (str, dict)):
            check(name, np.asarray(number, "float64"), new.compute_dtype)
    _build_blank(new, layer.get_build_config())
    for name, variable in named_weights(new).items():
        value = written.weights[name]
        if isinstance(value, ScaledKernel):
            value = value.round_to(variable.dtype)
        else:
            value = round_to(np.broadcast_to(value, variable.shape), variable.dtype)
        check(name, value, new.compute_dtype)  # what Keras casts it to in each call
        variable.assign(value)
    return new


def _build_blank(layer: keras.layers.Layer, config: Any) -> None:
    """Build with zeros: random weights take time and memory, and are written over."""
    own = [
        (vars(part), name, value)
        for part in (layer, *layer_paths(layer).values())
        for name, value in vars(part).items()
        if name.endswith("_initializer")
    ]
    for attributes, name, _ in own:
        attributes[name] = keras.initializers.Zeros()
    layer.build_from_config(config)
    for attributes, name, value in own:
        attributes[name] = value


def _report(
    model: keras.Model,
    plan: Plan,
    closed: Mapping[int, str],
    clones: Mapping[int, keras.layers.Layer],
) -> FoldReport:
    layers = layer_paths(model)
    paths = {id(layer): path for path, layer in layers.items()}
    into = {id(op.origin): plan.final_targets(op) for op in plan.into}
    reasons = {id(op.origin): reason for op, reason in plan.reasons.items()}
    unlike = excluded_batch_norms(model)

    def entry(path: str, layer: Any) -> FoldEntry:
        kind = type(layer).__name__
        if id(layer) in into:
            return FoldEntry(
                path, kind, tuple(paths.get(id(op.origin), op.name) for op in into[id(layer)])
            )
        if path in unlike:
            return FoldEntry(path, kind, reason=unlike[path][1])
        if id(layer) in reasons:
            return FoldEntry(path, kind, reason=reasons[id(layer)])
        around = (layer for outer, layer in layers.items() if path.startswith(f"{outer}/"))
        otherwise = NEVER_CALLED if path in layers else HIDDEN
        why = next((closed[id(layer)] for layer in around if id(layer) in closed), otherwise)
        return FoldEntry(path, kind, reason=why, hidden=why != NEVER_CALLED)

    found = batch_norms(model) | {path: layer for path, (layer, _) in unlike.items()}
    shared = tuple(path for path, layer in layers.items() if clones.get(id(layer)) is layer)
    return FoldReport(tuple(entry(path, layer) for path, layer in found.items()), shared)


def _unreadable(model: keras.Model, reason: CannotOpenError) -> TypeError:
    return TypeError(
        f"The graph of the model {model.name!r} ({type(model).__name__}) cannot be read: {reason}. "
        "Build it as a Functional model, or a Sequential one that starts with keras.Input, or export it "
        "with fold=False and samples=."
    )
