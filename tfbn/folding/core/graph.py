"""Which call feeds which: what the algorithm knows of a model, filled by a front end or by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .normalization import Normalization
    from .propagation import PropagationRule
    from .targets import FoldTarget

Shape = tuple[int | None, ...]


@dataclass(eq=False)
class Tensor:
    """One tensor of the model, known by its identity.

    Attributes:
        shape: with the batch axis; `None` where unknown.
        dtype: its type.
        producer: the call that makes it; `None` for an input of the model.
        users: the calls that take it, once for each time; `None` for an output of the model.
    """

    shape: Shape
    dtype: str
    producer: Call | None = None
    users: list[Call | None] = field(default_factory=list)


@dataclass(eq=False)
class Op:
    """What is called: a layer, or an operation without weights. Known by its identity.

    Attributes:
        name: for messages.
        kind: the name of its class.
        origin: the front end's own object, which the core never looks into.
        rule: how an affine map crosses it; `None` if none does.
        target: how it takes a map up; `None` if it takes none.
        normalization: what it computes if it is a batch norm; `None` if it is none.
    """

    name: str
    kind: str
    origin: Any = None
    rule: PropagationRule | None = None
    target: FoldTarget | None = None
    normalization: Normalization | None = None

    def __str__(self) -> str:
        return repr(self.name)


@dataclass(eq=False)
class Call:
    """One call of an operation.

    Attributes:
        op: what is called.
        arguments: tensors and constants, in order.
        dtype: the type that it computes in.
        outputs: the tensors that it makes.
        attributes: what rules ask about it, by the names that Keras has for it: `data_format`, `axis`, …
        obstacle: why no map may cross it or be taken up there, as in "is called with a mask".
        number: its place in an order in which the calls can run.
    """

    op: Op
    arguments: Sequence[Any]
    dtype: str
    outputs: list[Tensor] = field(default_factory=list)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    obstacle: str | None = None
    number: int = 0

    @property
    def inputs(self) -> list[Tensor]:
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]


class Graph:
    """The calls of a model, in an order in which they can run."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_op: dict[Op, list[Call]] = defaultdict(list)

    def add(self, call: Call, outputs: Sequence[tuple[Shape, str]]) -> list[Tensor]:
        """Add a call behind all others, and return its outputs, which are of these shapes and types."""
        call.number = len(self.calls)
        call.outputs = [Tensor(shape, dtype, producer=call) for shape, dtype in outputs]
        self.calls.append(call)
        self._by_op[call.op].append(call)
        for tensor in call.inputs:
            tensor.users.append(call)
        return call.outputs

    def of(self, op: Op) -> list[Call]:
        """All calls of an operation."""
        return self._by_op.get(op, [])

    def remove(self, op: Op) -> None:
        """Leave an operation out: its input goes on instead of its output."""
        for call in self._by_op.pop(op):
            (before, *_), (after,) = call.inputs, call.outputs
            before.users.remove(call)
            before.users += after.users
            for user in filter(None, after.users):
                user.arguments = [before if given is after else given for given in user.arguments]
            self.calls.remove(call)

    def copy(self) -> Graph:
        """The same calls of the same operations, on tensors of their own."""
        new = Graph()
        tensors: dict[Tensor, Tensor] = {}
        calls: dict[Call | None, Call | None] = {None: None}

        def copied(given: Any) -> Any:
            if not isinstance(given, Tensor):
                return given
            return tensors.setdefault(given, Tensor(given.shape, given.dtype))

        for call in self.calls:
            twin = replace(call, arguments=[copied(given) for given in call.arguments])
            twin.outputs = [copied(output) for output in call.outputs]
            for output in twin.outputs:
                output.producer = twin
            calls[call] = twin
            new.calls.append(twin)
            new._by_op[twin.op].append(twin)
        for old, tensor in tensors.items():
            tensor.users = [calls[user] for user in old.users]
        return new
