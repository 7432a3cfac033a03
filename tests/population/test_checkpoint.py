"""A measurement that was killed is gone on with, and is then what one pass would have given."""

import numpy as np
import pytest
import tensorflow as tf

import tfbn
from networks import chain, randomize
from population_data import Sequence, X
from sweeps import thinned
from tfbn.population import checkpoint as module

BATCHES = np.split(X, 5)


class KilledError(Exception):
    pass


def until(number, how="killed"):
    """Batches until the process is killed, or the data goes wrong, at the given one."""
    for position, x in enumerate(BATCHES):
        if position == number:
            if how == "killed":
                raise KilledError
            yield (np.full_like(x, np.nan),)
        else:
            yield (x,)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.0)  # written after each batch
    return tmp_path / "stats.npz"


def assert_equal(one, other):
    assert list(one) == list(other)
    for path, statistics in one.items():
        np.testing.assert_allclose(statistics.mean, other[path].mean, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(statistics.variance, other[path].variance, rtol=1e-13)
        assert statistics.count == other[path].count


KINDS = {
    "array": lambda: tf.data.Dataset.from_tensor_slices(X).batch(40),
    "batches": lambda: [(x,) for x in BATCHES],
    "generator": lambda: ((x,) for x in BATCHES),
    "PyDataset": Sequence,
}


@pytest.mark.parametrize(("kind", "how"), thinned(2, KINDS, ["killed", "nan"]))
def test_a_pass_that_ended_early_is_gone_on_with(model, path, kind, how):
    randomize(model)
    with pytest.raises((KilledError, ValueError, tf.errors.OpError)):
        tfbn.population_statistics(model, until(3, how), verbose=0, checkpoint=path)
    assert (tfbn.Statistics.load(path).batches, tfbn.Statistics.load(path).samples) == (3, 120)
    whole = tfbn.population_statistics(model, KINDS[kind](), verbose=0)
    assert_equal(
        tfbn.population_statistics(model, KINDS[kind](), verbose=0, checkpoint=path),
        whole,
    )
    assert tfbn.Statistics.load(path).samples == len(X)
    # What was measured is not measured again: the same batches hold other numbers now.
    other = [(np.full_like(x, np.nan),) for x in BATCHES]
    assert_equal(tfbn.recalibrate(model, other, verbose=0, checkpoint=path), whole)


def test_steps_count_what_was_measured_before(model, path):
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(40).repeat()
    tfbn.measure(model, dataset, steps=2, verbose=0, checkpoint=path)
    gone_on = tfbn.measure(model, dataset, steps=7, verbose=0, checkpoint=path)
    assert gone_on.batches == 7
    whole = tfbn.measure(model, dataset, steps=7, verbose=0)
    for part, other in zip(gone_on.moments["first"], whole.moments["first"], strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-13)
    with pytest.raises(ValueError, match=r"holds 7 batches, more than steps=6\. Raise steps"):
        tfbn.measure(model, dataset, steps=6, verbose=0, checkpoint=path)


OTHERS = {
    "larger batches": lambda: tf.data.Dataset.from_tensor_slices(X).batch(50),
    "fewer batches": lambda: BATCHES[0],
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_data_is_refused(model, path, other):
    tfbn.measure(model, [(x,) for x in BATCHES[:3]], verbose=0, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="it is of other data, or of other batches"):
        tfbn.measure(model, OTHERS[other](), verbose=0, checkpoint=path)
    assert path.read_bytes() == before


def test_other_weights_and_other_files_are_refused_before_any_work(path):
    model = chain((6, 5, 3), tfbn.BatchNorm(name="first"))
    tfbn.measure(model, X, verbose=0, checkpoint=path)
    model.get_layer("first").beta.assign_add([1.0, 0.0, 0.0])
    data = iter(BATCHES)
    with pytest.raises(ValueError, match=r"stats\.npz was measured with other weights than"):
        tfbn.population_statistics(model, data, checkpoint=path)
    path.write_text("something else")
    with pytest.raises(ValueError, match=r"stats\.npz is no \.npz file"):
        tfbn.population_statistics(model, data, checkpoint=path)
    assert len([*data]) == len(BATCHES)
    assert path.read_text() == "something else"


def test_the_file_is_not_written_after_every_batch(model, path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 3600.0)
    with pytest.raises((KilledError, tf.errors.OpError), match="KilledError"):
        tfbn.measure(model, until(3), verbose=0, checkpoint=path)
    assert not path.exists()
    tfbn.measure(model, X, verbose=0, checkpoint=path)
    assert tfbn.Statistics.load(path).samples == len(X)
