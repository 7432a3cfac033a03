"""The algorithm on graphs built by hand: no layer, no Keras; NumPy computes what comes out."""

import numpy as np
import pytest

from hand_graphs import Example, add, relu
from tfbn.folding.core.affine import Affine, CannotFoldError
from tfbn.folding.core.combining import AddRule, ConcatRule, MultiplyRule
from tfbn.folding.core.graph import Call, Op, Tensor
from tfbn.folding.core.normalization import Normalization
from tfbn.folding.core.plan import make_plan
from tfbn.folding.core.targets import PendingFold


def test_backwards_into_what_feeds_it():
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 4)
    example.output(example.call(bn, example.call(dense, example.input(3), size=4)))
    plan = example.check({"bn"})
    assert plan.into[bn] == (dense,)
    assert plan.pending[dense].input_map is None


def test_forwards_into_what_it_feeds():
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 3)
    example.output(example.call(dense, example.call(bn, example.input(3)), size=4))
    plan = example.check({"bn"})
    assert plan.pending[dense].output_map is None


def test_both_ways_into_one_layer():
    example = Example()
    before, after = example.batch_norm("before", 3), example.batch_norm("after", 4)
    dense = example.linear("dense", 3, 4)
    x = example.call(dense, example.call(before, example.input(3)), size=4)
    example.output(example.call(after, x))
    example.check({"before", "after"})


@pytest.mark.parametrize(
    ("arguments", "folded"),
    [
        ({"positive": True, "offset": False}, True),
        ({"positive": True}, False),
        ({"offset": False}, False),
    ],
)
def test_conditions_of_what_is_crossed(arguments, folded):
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 4, **arguments)
    x = example.call(relu(), example.call(dense, example.input(3), size=4))
    example.output(example.call(bn, x))
    plan = example.check({"bn"} if folded else set())
    assert folded or "does not pass 'relu' (ReLU)" in plan.reasons[bn]


@pytest.mark.parametrize(("function", "signs"), [(np.add, ()), (np.subtract, (1, -1))])
@pytest.mark.parametrize("excluded", [None, "left", "right"])
def test_across_a_sum_into_both_of_its_inputs(function, signs, excluded):
    example = Example()
    x, bn = example.input(3), example.batch_norm("bn", 4)
    branches = [example.linear(name, 3, 4) for name in ("left", "right")]
    tensors = [example.call(op, x, size=4) for op in branches]
    combine = Op("combine", "Combine", function, rule=AddRule(*signs))
    example.output(example.call(bn, example.call(combine, *tensors)))
    barred = {op: "barred" for op in branches if op.name == excluded}
    plan = example.check(set() if excluded else {"bn"}, barred)
    if not excluded:
        assert set(plan.into[bn]) == set(branches)
        offsets = [plan.pending[op].output_map.offset.any() for op in branches]
        assert sorted(offsets) == [False, True]  # once, not twice


def test_a_difference_takes_the_offset_where_it_can():
    """The first input has no place for an offset, so the second one gets it, with the other sign."""
    example = Example()
    x, bn = example.input(3), example.batch_norm("bn", 4, positive=True)
    left, right = example.linear("left", 3, 4), example.linear("right", 3, 4)
    rectified = example.call(relu(), example.call(left, x, size=4))
    subtract = Op("subtract", "Subtract", np.subtract, rule=AddRule(1, -1))
    y = example.call(subtract, rectified, example.call(right, x, size=4))
    example.output(example.call(bn, y))
    plan = example.check({"bn"})
    assert not plan.pending[left].output_map.offset.any()
    assert plan.pending[right].output_map.offset.any()


def test_a_sum_of_the_input_keeps_the_batch_norm():
    example = Example()
    x, bn = example.input(4), example.batch_norm("bn", 4)
    branch = example.call(example.linear("dense", 4, 4), x)
    example.output(example.call(bn, example.call(add(), branch, x)))
    plan = example.check(set())
    assert "it normalises an input of the model" in plan.reasons[bn]


def test_concatenated_slices():
    example = Example()
    x, bn = example.input(3), example.batch_norm("bn", 5)
    left, right = example.linear("left", 3, 2), example.linear("right", 3, 3)
    join = Op("concat", "Concat", lambda *parts: np.concatenate(parts, -1), rule=ConcatRule())
    branches = example.call(left, x, size=2), example.call(right, x, size=3)
    example.output(example.call(bn, example.call(join, *branches, size=5, axis=-1)))
    plan = example.check({"bn"})
    assert [plan.pending[op].output_map.scale.size for op in (left, right)] == [2, 3]


def test_one_operation_cannot_take_up_two_maps():
    example = Example()
    dense, bn = example.linear("dense", 3, 2), example.batch_norm("bn", 4)
    branches = [example.call(dense, example.input(3), size=2) for _ in range(2)]
    join = Op("concat", "Concat", lambda *parts: np.concatenate(parts, -1), rule=ConcatRule())
    example.output(example.call(bn, example.call(join, *branches, size=4, axis=-1)))
    assert "'dense' is shared" in example.check(set()).reasons[bn]


def test_a_product_takes_the_scale_on_one_side():
    example = Example()
    x, bn = example.input(3), example.batch_norm("bn", 4, offset=False)
    left, right = example.linear("left", 3, 4), example.linear("right", 3, 4)
    multiply = Op("multiply", "Multiply", np.multiply, rule=MultiplyRule())
    branches = example.call(left, x, size=4), example.call(right, x, size=4)
    example.output(example.call(bn, example.call(multiply, *branches)))
    assert len(example.check({"bn"}).into[bn]) == 1


def test_batch_norms_of_one_tensor_go_together_or_not_at_all():
    for same in (True, False):
        example = Example()
        y = example.call(example.linear("dense", 3, 4), example.input(3), size=4)
        first, second = example.batch_norm("first", 4), example.batch_norm("second", 4)
        second.normalization = first.normalization if same else second.normalization
        second.origin = first.origin if same else second.origin
        example.output(example.call(first, y), example.call(second, y))
        plan = example.check({"first", "second"} if same else set())
        assert same or "'dense' is used by more than this batch norm" in plan.reasons[first]


def test_an_operation_called_twice_wants_one_change():
    example = Example()
    dense, bn = example.linear("dense", 4, 4), example.batch_norm("bn", 4)
    once = example.call(dense, example.input(4))
    example.output(example.call(bn, example.call(dense, once)))
    assert "'dense' is shared" in example.check(set()).reasons[bn]


def test_a_batch_norm_called_twice_goes_from_both_calls():
    example = Example()
    bn = example.batch_norm("bn", 4)
    for name in ("left", "right"):
        branch = example.call(example.linear(name, 3, 4), example.input(3), size=4)
        example.output(example.call(bn, branch))
    assert {op.name for op in example.check({"bn"}).into[bn]} == {"left", "right"}


def test_merged_only_where_nothing_else_is_left():
    example = Example()
    first, second = example.batch_norm("first", 4), example.batch_norm("second", 4)
    x = example.call(second, example.call(first, example.input(4)))
    example.output(x)
    plan = example.check({"first"})
    assert plan.into[first] == (second,)
    assert plan.final_targets(first) == [second]


def test_a_layer_is_preferred_to_another_batch_norm():
    example = Example()
    first, second = example.batch_norm("first", 3), example.batch_norm("second", 3)
    dense = example.linear("dense", 3, 4)
    x = example.call(second, example.call(first, example.input(3)))
    example.output(example.call(dense, x, size=4))
    plan = example.check({"first", "second"})
    assert plan.into == {second: (dense,), first: (dense,)}


def test_final_targets_of_what_was_merged_and_then_went():
    """Neither passes the ReLU alone; merged, they are a positive scale without an offset."""
    example = Example()
    first, second = example.batch_norm("first", 3), example.batch_norm("second", 3)
    dense = example.linear("dense", 3, 4)
    for bn, affine in (
        (first, Affine(np.full(3, -2.0), np.full(3, 0.5))),
        (second, Affine(np.full(3, -2.0), np.ones(3))),
    ):
        bn.normalization = Normalization(affine, affine.scale, affine.offset, -1, (3,), False)
        bn.origin = lambda x, affine=affine: x * affine.scale + affine.offset
    x = example.call(relu(), example.call(second, example.call(first, example.input(3))))
    example.output(example.call(dense, x, size=4))
    plan = example.check({"first", "second"})
    assert plan.into == {first: (second,), second: (dense,)}
    assert plan.final_targets(first) == [dense]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"obstacle": "is called with a mask"}, "'dense' is called with a mask"),
        ({"dtype": "float32"}, "it computes in float64 and 'dense' in float32"),
    ],
)
def test_obstacles_and_other_types(change, reason):
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 4)
    example.output(example.call(bn, example.call(dense, example.input(3), size=4, **change)))
    assert reason in example.check(set()).reasons[bn]


def test_an_obstacle_of_the_batch_norm_itself():
    example = Example()
    bn = example.batch_norm("bn", 4)
    y = example.call(example.linear("dense", 3, 4), example.input(3), size=4)
    example.output(example.call(bn, y, obstacle="is called with training=True"))
    assert example.check(set()).reasons[bn] == "it is called with training=True"


def test_what_is_excluded_takes_nothing_up():
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 4)
    example.output(example.call(bn, example.call(dense, example.input(3), size=4)))
    plan = example.check(set(), excluded={dense: "its weights do not fit"})
    assert "its weights do not fit" in plan.reasons[bn]


def test_an_operation_without_a_rule_stops_it():
    example = Example()
    dense, bn = example.linear("dense", 3, 4), example.batch_norm("bn", 4)
    y = example.call(Op("tanh", "Tanh", np.tanh), example.call(dense, example.input(3), size=4))
    example.output(example.call(bn, y))
    assert "'tanh' (Tanh) can neither take it up nor let it pass" in example.check(set()).reasons[bn]


@pytest.mark.parametrize(
    ("mean", "dtype", "folded"), [(0, "float32", True), (9, "float32", False), (9, "float64", True)]
)
def test_inputs_far_from_0_keep_a_batch_norm_that_centers_first(mean, dtype, folded):
    example = Example()
    bn = example.batch_norm("bn", 4, centers_first=True, mean=mean)
    x = example.input(4)
    x.dtype = dtype
    y = example.call(bn, x, dtype=dtype)
    example.output(example.call(example.linear("dense", 4, 3), y, size=3, dtype=dtype))
    plan = make_plan(example.graph, {})
    assert (bn in plan.into) == folded, plan.reasons


def test_a_plan_leaves_the_graph_as_it_was():
    example = Example()
    x, bn = example.input(3), example.batch_norm("bn", 4)
    y = example.call(example.linear("dense", 3, 4), x, size=4)
    example.output(example.call(bn, y))

    def state():
        calls = example.graph.calls
        return [(call, list(call.arguments), call.outputs, list(call.inputs[0].users)) for call in calls]

    before = state()
    example.check({"bn"})
    assert state() == before


def test_a_copy_has_the_same_shape_and_nothing_in_common():
    example = Example()
    x = example.input(3)
    y = example.call(example.linear("dense", 3, 4), x, size=4)
    example.output(example.call(example.batch_norm("bn", 4), y))
    copy = example.graph.copy()

    def drawn(graph):
        def place(call):
            return call and graph.calls.index(call)

        return [
            (
                call.op,
                [
                    (t.shape, place(t.producer), [*map(place, t.users)])
                    for t in [*call.inputs, *call.outputs]
                ],
            )
            for call in graph.calls
        ]

    assert drawn(copy) == drawn(example.graph)
    copy.remove(copy.calls[1].op)
    assert len(example.graph.calls) == 2
    assert y.users == [example.graph.calls[1]]


def test_pending_maps_compose_in_the_order_of_the_graph():
    first, second = Affine(np.array([2.0]), np.array([1.0])), Affine(np.array([3.0]), np.array([5.0]))
    own = Affine(np.array([7.0]), np.array([11.0]))
    x = np.array([0.5, -2])

    def apply(affine, x):
        return affine.scale * x + affine.offset

    # What moves forwards later stood further in front; what moves backwards later, further behind.
    forwards = PendingFold().with_input_map(first).with_input_map(second).applied_to(own)
    np.testing.assert_allclose(apply(forwards, x), apply(own, apply(first, apply(second, x))))
    backwards = PendingFold().with_output_map(first).with_output_map(second).applied_to(own)
    np.testing.assert_allclose(apply(backwards, x), apply(second, apply(first, apply(own, x))))


def test_numbers_that_are_not_finite_are_refused():
    own = Normalization(Affine(np.array([np.inf]), np.zeros(1)), np.ones(1), np.zeros(1), -1, (1,), True)
    call = Call(Op("bn", "BN", normalization=own), [Tensor((None, 1), "float32")], "float32")
    with pytest.raises(CannotFoldError, match="scale or offset of 'bn' is not finite"):
        own.sample_map(call, PendingFold())
