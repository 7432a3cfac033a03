"""Statistics of parts of the data add up to those of the whole, whatever the parts and their order."""

import functools
import pickle

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfbn
from networks import chain, randomize
from population_data import X, assert_first_is_exact
from tfbn.batch_norms import batch_norms
from tfbn.moments import Moments

BATCHES = [(part,) for part in np.split(X, [3, 40, 50, 177])]
ROUNDING = {"rtol": 1e-13, "atol": 1e-15}  # of float64, over a few additions


def of(values):
    """The statistics of rows of values, by NumPy alone."""
    values = np.asarray(values, "float64").reshape(-1, 2)
    count = np.full(2, float(len(values)))
    mean, variance = (values.mean(0), values.var(0)) if len(values) else (np.zeros(2), np.zeros(2))
    return tfbn.Statistics({"bn": Moments(mean, variance, count)}, {}, 1, len(values), "same")


def assert_alike(one, other, **tolerance):
    assert (one.batches, one.samples, one.weights) == (other.batches, other.samples, other.weights)
    assert one.unused == other.unused
    assert one.moments.keys() == other.moments.keys()
    for path, moments in one.moments.items():
        for part, other_part in zip(moments, other.moments[path], strict=True):
            np.testing.assert_allclose(part, other_part, **tolerance)


@st.composite
def parts(draw):
    """Rows of two channels at most a few deviations apart, cut anywhere; parts may be empty."""
    rows = draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.normal(draw(st.sampled_from([0, 1, 1e3])), 1, (rows, 2))
    cuts = draw(st.lists(st.integers(0, rows), max_size=6))
    return values, np.split(values, sorted(cuts))


@given(parts(), st.randoms(use_true_random=False))
def test_parts_add_up_in_any_order_and_grouping(drawn, random):
    values, cut = drawn
    # At a mean of a thousand deviations that mean's last digit is 1e-13 of a deviation.
    tolerance = {"rtol": 1e-12, "atol": 1e-10}
    shuffled = [of(part) for part in cut]
    random.shuffle(shuffled)
    while len(shuffled) > 1:
        first = shuffled.pop(random.randrange(len(shuffled)))
        other = random.randrange(len(shuffled))
        shuffled[other] = shuffled[other].merge(first)
    whole = of(values)
    np.testing.assert_allclose(shuffled[0].moments["bn"], whole.moments["bn"], **tolerance)
    assert shuffled[0].samples == len(values)
    assert_alike(tfbn.Statistics().merge(*map(of, cut)), shuffled[0], **tolerance)


def test_statistics_of_no_data_change_nothing():
    some = of(X[..., :2])
    for together in (some.merge(), some.merge(tfbn.Statistics()), tfbn.Statistics().merge(some)):
        assert_alike(together, some, rtol=0)


def test_measured_shards_are_the_whole(model):
    randomize(model)
    shards = [tfbn.measure(model, BATCHES[start:stop], verbose=0) for start, stop in ((2, 5), (0, 2))]
    together = shards[0].merge(shards[1])
    assert (together.batches, together.samples) == (5, len(X))
    assert_alike(together, tfbn.measure(model, BATCHES, verbose=0), **ROUNDING)
    measured = tfbn.population_statistics(model, together)
    assert_first_is_exact(measured, X)
    directly = tfbn.population_statistics(model, BATCHES, verbose=0)
    assert list(measured) == list(directly)
    assert measured.left == directly.left
    for path, statistics in directly.items():
        np.testing.assert_allclose(measured[path].variance, statistics.variance, **ROUNDING)
        assert measured[path].count == statistics.count


def test_recalibrate_takes_the_sum(model):
    randomize(model)
    shards = [tfbn.measure(model, [batch], verbose=0) for batch in BATCHES]
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    report = tfbn.recalibrate(model, functools.reduce(tfbn.Statistics.merge, shards))
    tfbn.recalibrate(copy, BATCHES, verbose=0)
    assert len(report) == 4
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    # The moving statistics are now others, which do not decide what reaches a batch norm.
    tfbn.recalibrate(model, shards[0])


def test_a_shard_with_one_value_or_none_is_no_error():
    model = chain((3,), tfbn.BatchNorm(name="bn"))
    one = tfbn.measure(model, X[:1, 0, 0], verbose=0)
    assert one.count("bn") == 1
    with pytest.raises(ValueError, match="it saw 1 value in a channel"):
        tfbn.population_statistics(model, one)
    both = one.merge(tfbn.measure(model, X[1:, 0, 0], verbose=0))
    np.testing.assert_allclose(
        tfbn.population_statistics(model, both)["bn"].mean,
        X[:, 0, 0].mean(0, dtype="float64"),
        rtol=1e-6,
    )


class Unused(keras.Model):
    def __init__(self):
        super().__init__()
        self.used, self.fixed = tfbn.BatchNorm(name="used"), tfbn.BatchNorm(name="fixed")

    def call(self, x, training=None):
        return self.fixed(self.used(x, training=training), training=False)


def test_what_training_does_not_use_is_said_of_the_sum_too():
    model = Unused()
    model(X)
    shards = [tfbn.measure(model, [batch], verbose=0) for batch in BATCHES]
    measured = tfbn.population_statistics(model, shards[0].merge(*shards[1:]))
    assert list(measured) == ["used"]
    assert measured.left == tfbn.population_statistics(model, X, verbose=0).left != {}


def test_files_and_pickles_hold_all_of_it(model, tmp_path):
    measured = tfbn.measure(model, BATCHES, verbose=0)
    path = tmp_path / "deep" / "stats.npz"
    of(X[..., :2]).save(path)
    measured.save(path)
    assert_alike(tfbn.Statistics.load(path), measured, rtol=0)
    assert [file.name for file in path.parent.iterdir()] == ["stats.npz"]
    assert_alike(pickle.loads(pickle.dumps(measured)), measured, rtol=0)
    tfbn.Statistics().save(path)
    assert_alike(tfbn.Statistics.load(path), tfbn.Statistics(), rtol=0)


def rewritten(path, **changed):
    with np.load(path) as file:
        np.savez(path, **{**file, **changed})


DAMAGE = {
    "no zip": lambda path: path.write_bytes(b"PK"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "other arrays": lambda path: np.savez(path, x=X),
    "no JSON": lambda path: rewritten(path, statistics=np.array("x")),
    "other JSON": lambda path: rewritten(path, statistics=np.array('{"paths": [], "a": 1}')),
    "a list": lambda path: rewritten(path, statistics=np.array("[]")),
    "another shape": lambda path: rewritten(path, mean0=np.zeros(7)),
    "another type": lambda path: rewritten(path, count0=np.zeros(2, "int64")),
    "NaN": lambda path: rewritten(path, mean0=np.full(2, np.nan)),
    "below 0": lambda path: rewritten(path, variance0=np.full(2, -1.0)),
    "missing": lambda path: rewritten(
        path, statistics=np.array('{"paths": ["a", "b"], "unused": {}, "weights": ""}')
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_another_file_is_refused(tmp_path, damage):
    path = tmp_path / "stats.npz"
    of(X[..., :2]).save(path)
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match=r"stats\.npz .*tfbn\.Statistics\.save writes such files"):
        tfbn.Statistics.load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*stats\.npz"):
        tfbn.Statistics.load(tmp_path / "stats.npz")


def test_statistics_of_other_weights_are_refused(model):
    before = tfbn.measure(model, X, verbose=0)
    next(iter(batch_norms(model).values())).gamma.assign_add([1.0, 0.0, 0.0])
    weights = model.get_weights()
    with pytest.raises(ValueError, match="measured with other weights, or other names"):
        before.merge(tfbn.measure(model, X, verbose=0))
    for use in (tfbn.recalibrate, tfbn.population_statistics):
        with pytest.raises(ValueError, match="were measured with other weights than"):
            use(model, before)
    with pytest.raises(ValueError, match="of no data"):
        tfbn.recalibrate(model, tfbn.Statistics())
    with pytest.raises(ValueError, match="leave steps and checkpoint out"):
        tfbn.recalibrate(model, before, steps=3)
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
