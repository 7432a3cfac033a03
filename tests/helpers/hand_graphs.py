"""Graphs of the folding core built by hand, and NumPy to compute what comes out."""

from dataclasses import dataclass

import numpy as np

import reference
from tfbn.folding.core.affine import Affine
from tfbn.folding.core.combining import AddRule
from tfbn.folding.core.graph import Call, Graph, Op, Tensor
from tfbn.folding.core.kernel_arithmetic import KernelLayout
from tfbn.folding.core.normalization import Normalization
from tfbn.folding.core.plan import make_plan
from tfbn.folding.core.propagation import PassThrough, no_offset, not_negative
from tfbn.folding.core.targets import FoldTarget

LAYOUT = KernelLayout("kernel", (-1,), ("kernel", -2))
ROUNDING = 1e-12  # a few float64 products and sums


@dataclass
class Linear:
    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x):
        return x @ self.kernel + self.bias


class LinearTarget(FoldTarget):
    def output(self, call, affine):
        return affine

    input = output


class MergingTarget(LinearTarget):
    merges = True


class Example:
    """A graph of vectors, its numbers, and what it computes before and after a plan."""

    def __init__(self, seed=0):
        self.graph, self.random, self.given = Graph(), np.random.default_rng(seed), {}
        self.outputs = []

    def input(self, size):
        tensor = Tensor((None, size), "float64")
        self.given[tensor] = reference.data((5, size), len(self.given)).astype("float64")
        return tensor

    def call(self, op, *arguments, size=None, dtype="float64", obstacle=None, **attributes):
        size = size or arguments[0].shape[-1]
        call = Call(op, list(arguments), dtype, attributes=attributes, obstacle=obstacle)
        return self.graph.add(call, [((None, size), dtype)])[0]

    def output(self, *tensors):
        for tensor in tensors:
            tensor.users.append(None)
            self.outputs.append(tensor)

    def linear(self, name, inputs, outputs):
        source = Linear(self.random.normal(size=(inputs, outputs)), self.random.normal(size=outputs))
        return Op(name, "Linear", source, target=LinearTarget())

    def batch_norm(self, name, size, positive=False, offset=True, centers_first=False, mean=0.0):
        scale = self.random.uniform(0.5, 2, size) * (1 if positive else [-1, *[1] * (size - 1)])
        shift = self.random.normal(size=size) * offset
        affine = Affine(scale, shift - scale * mean)
        own = Normalization(affine, scale, shift, -1, (size,), centers_first)
        source = lambda x: x * affine.scale + affine.offset  # noqa: E731
        return Op(name, "BN", source, target=MergingTarget(), normalization=own)

    def compute(self, plan=None):
        """The outputs of the graph, or of what a plan makes of it."""
        values = dict(self.given)
        for call in self.graph.calls:
            arguments = [values.get(a) if isinstance(a, Tensor) else a for a in call.arguments]
            values[call.outputs[0]] = self.function(call.op, plan)(*arguments)
        return [values[tensor] for tensor in self.outputs]

    def function(self, op, plan):
        if plan is None or (op not in plan.into and op not in plan.pending):
            return op.origin
        if op in plan.into:
            return lambda x: x
        pending = plan.pending[op]
        if op.normalization is not None:
            affine = pending.applied_to(op.normalization.affine)
            return lambda x: x * affine.scale + affine.offset
        kernels, bias = LAYOUT.fold({"kernel": op.origin.kernel}, op.origin.bias, pending)
        return Linear(kernels["kernel"].round_to("float64"), bias)

    def check(self, folded, excluded=None):
        plan = make_plan(self.graph, excluded or {})
        assert {op.name for op in plan.into} == set(folded), plan.reasons
        for got, want in zip(self.compute(plan), self.compute(), strict=True):
            np.testing.assert_allclose(got, want, rtol=ROUNDING, atol=ROUNDING)
        return plan


def relu():
    return Op("relu", "ReLU", lambda x: np.maximum(x, 0), rule=PassThrough(no_offset, not_negative))


def add():
    return Op("add", "Add", np.add, rule=AddRule())
