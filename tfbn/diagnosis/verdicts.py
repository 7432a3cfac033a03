"""From numbers to a verdict in words, with what was seen and what to do.

Limits were chosen on trainings of dense and convolutional networks on digits: healthy ones (decay 0.9
and 0.99, Adam and SGD, with dropout) drift by 0.26 at most; those whose accuracy suffers, by 0.44.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from .evidence import Evidence
from .weights import HUGE_STATISTIC, broken

Verdict = Literal[
    "fine", "lagging", "never updated", "other data", "small batches", "frozen", "diverged"
]

# Worst first. Within those that are bad, the larger drift is the worse.
SEVERITY: dict[Verdict, int] = {
    "diverged": 0,
    "never updated": 1,
    "other data": 2,
    "lagging": 2,
    "frozen": 2,
    "small batches": 3,
    "fine": 4,
}

# Drift up to here is sound: dropout of one half in front makes inputs vary up to twice as much in
# training as at inference, which is a drift of 1 - sqrt(1/2) = 0.29.
DRIFT = 1 / 3
# The data's own statistics are those of so many samples: the error of their mean and deviation is a
# drift of sqrt(1.5 / samples), which is taken twice, so that few samples accuse no one.
SAMPLING = 4 * 1.5
# An explanation holds if it leaves at most so much of the drift. Held initial values leave a fifth of it
# or less; other data, whatever share is tried, two thirds and more. Where the steps are not known and
# any share may be tried, a half is too easily reached.
EXPLAINED = 1 / 2
EXPLAINED_WITHOUT_STEPS = 1 / 4
# What small batches made of the layers before it is not in the estimate for a layer.
EXPLAINED_BY_BATCHES = 0.6
# In batches of fewer independent values a mean is off by 0.4 deviations and more, each time: Wu & He
# (arXiv 1803.08494, figure 1) see errors rise from 8 samples downwards, and sharply at 4.
SMALL_BATCH = 6
# Fewer batches say nothing sure of how they scatter.
ENOUGH_BATCHES = 4
# Random batches hold at least one independent value a sample. So much less, and they are not random.
UNSHUFFLED = 4

RECALIBRATE = "tfbn.recalibrate(model, data)"


class Judgement(NamedTuple):
    """A verdict, what speaks for it, and what to do, in words; no remedy where all is fine."""

    verdict: Verdict
    reason: str
    remedy: str = ""


def judge(seen: Evidence) -> Judgement:
    """The verdict on one batch norm."""
    for test in (_diverged, _never_updated, _fine_or_frozen, _lagging, _small_batches):
        if (found := test(seen)) is not None:
            return found
    return Judgement(
        "other data",
        f"{_off(seen)}, and neither {_steps(seen)} nor the size of batches explains it",
        f"If data is what the model is for, call {RECALIBRATE}; otherwise prepare it as in training "
        "(scale, mean, order of channels), or pass the data that it was trained on.",
    )


def limit(seen: Evidence) -> float:
    """The drift up to which statistics of so many samples are sound."""
    return float(np.sqrt(DRIFT**2 + SAMPLING / max(seen.samples, 1)))


def _diverged(seen: Evidence) -> Judgement | None:
    reason = broken(seen.numbers)
    remedy = (
        "Train again from an earlier checkpoint with a lower learning rate, or with clipnorm=1.0 in the "
        "optimizer; recalibration does not mend weights."
    )
    if reason is None:
        mean, variance = seen.population
        known = np.isfinite(mean) & np.isfinite(variance)
        if not known.all():
            reason = (
                f"data gives it NaN or infinite inputs ({int((~known).sum())} of {known.size} channels)"
            )
            remedy = "Look for NaN in data, and in the layers before it. " + remedy
        elif max(np.abs(mean).max(), variance.max()) > HUGE_STATISTIC:
            reason = f"its inputs have a variance of up to {variance.max():.2g}"
    return None if reason is None else Judgement("diverged", reason, remedy)


def _never_updated(seen: Evidence) -> Judgement | None:
    if seen.numbers.frozen_by is not None or not seen.numbers.at_initial_values:
        return None
    mean, variance = seen.numbers.initial
    reason = f"its moving statistics are still {mean:g} and {variance:g} in every channel; {_off(seen)}"
    if seen.numbers.decay == 1:
        return Judgement(
            "never updated",
            f"{reason}, and with decay=1.0 they never move",
            f"Call {RECALIBRATE}, and train with decay=0.99.",
        )
    return Judgement(
        "never updated",
        reason,
        f"Call {RECALIBRATE}; in a training loop of your own call model(x, training=True), in TF1 code "
        "run UPDATE_OPS.",
    )


def _fine_or_frozen(seen: Evidence) -> Judgement | None:
    if seen.numbers.frozen_by is not None:
        if seen.drift <= limit(seen):
            return Judgement("fine", f"frozen; {_off(seen)}")
        return Judgement(
            "frozen",
            f"frozen by {seen.numbers.frozen_by}.trainable = False with other statistics: {_off(seen)}",
            f"Set trainable = True and call {RECALIBRATE}, unless what is behind it was trained with "
            "these statistics.",
        )
    if seen.drift <= limit(seen) and not _batches_are_small(seen):
        return Judgement("fine", _off(seen))
    return None


def _lagging(seen: Evidence) -> Judgement | None:
    if seen.drift <= limit(seen):
        return None
    share, left = seen.residue_found()
    needed = EXPLAINED_WITHOUT_STEPS if seen.residue is None else EXPLAINED
    if share == 0 or left > needed * seen.drift:
        return None
    decay = seen.numbers.decay
    remedy = f"Call {RECALIBRATE} now; next time train longer, or with a lower decay"
    if decay is not None and seen.steps is not None:
        remedy += f": decay={_decay_for(seen.steps):g} forgets its initial value in {seen.steps} steps"
    return Judgement(
        "lagging",
        f"its moving statistics still hold {100 * share:.2g}% of their initial values after "
        f"{_steps(seen)}; {_off(seen)}",
        f"{remedy}.",
    )


def _decay_for(steps: int) -> float:
    """The largest usual decay that leaves a thousandth of the initial value after so many steps."""
    usual = (0.999, 0.99, 0.95, 0.9)
    return next((decay for decay in usual if decay**steps <= 1e-3), 0.8)


def _batches_are_small(seen: Evidence) -> bool:
    values = seen.values_a_batch
    return values is not None and seen.batches >= ENOUGH_BATCHES and values < SMALL_BATCH


def _small_batches(seen: Evidence) -> Judgement | None:
    use = "tfbn.BatchRenorm() in place of the layer, or synchronized=True where replicas share a batch"
    if _batches_are_small(seen):
        values, samples = seen.values_a_batch or 0, seen.samples / seen.batches
        reason = f"a channel has {values:.1f} independent values in a batch of {samples:.3g} samples"
        if samples > UNSHUFFLED * values:
            return Judgement(
                "small batches",
                f"{reason}: batches are not like each other",
                "Shuffle data, here and in training: dataset.shuffle(n) before batch(size).",
            )
        return Judgement("small batches", reason, f"Train with larger batches, or use {use}.")
    lost = np.median(seen.variance_ratio) < 1 - 1 / SMALL_BATCH
    if seen.between is None or not lost:
        return None
    # Batches of one sample leave no variance at all where a sample has one value: they are not tried.
    size, left = seen.batch_found(np.arange(2.0, SMALL_BATCH + 1))
    if left > np.hypot(EXPLAINED_BY_BATCHES * seen.drift, _noise(seen, size)):
        return None
    return Judgement(
        "small batches",
        f"its moving variance is that within batches of about {size:g} samples; {_off(seen)}",
        f"Call {RECALIBRATE}; train with larger batches, or use {use}.",
    )


def _noise(seen: Evidence, size: float) -> float:
    """Twice the drift to be expected of a moving average over such batches, which holds few values.

    It averages (1 + decay) / (1 - decay) batches.
    """
    decay = seen.numbers.decay
    if decay is None or decay == 1:
        return 0.0
    return float(np.sqrt(SAMPLING / size * (1 - decay) / (1 + decay)))


def _off(seen: Evidence) -> str:
    shifts, ratios = np.abs(seen.shift), seen.variance_ratio
    return (
        f"means are {np.median(shifts):.2g} deviations off, variances {np.median(ratios):.3g} times the "
        "data's"
    )


def _steps(seen: Evidence) -> str:
    decay = "its decay" if seen.numbers.decay is None else f"decay {seen.numbers.decay:g}"
    return (
        f"{decay} over an unknown number of steps"
        if seen.steps is None
        else f"{seen.steps} steps of {decay}"
    )
