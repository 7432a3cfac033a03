"""What the weights of a batch norm tell, without any data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .layers import LayerNumbers

# A channel's output deviates by |gamma|, which starts at 1: a thousandth of that is as if dead.
DEAD_GAMMA = 1e-3
# Inputs that deviate by a tenth of sqrt(epsilon) or less come out as a tenth of gamma at most.
DEAD_VARIANCE = 1e-2  # of epsilon
# Above, epsilon is most of what is divided by: the output deviates by less than 0.7 gamma.
DOMINATED_VARIANCE = 1.0  # of epsilon
# A factor that carries noise far, and that its layer's other channels do not share: where inputs are in
# small units, all channels of a sound layer have large ones.
EXPLODING_SCALE = 100.0
EXPLODING_BESIDE_MEDIAN = 10.0
# Weights that start at 1 and 0 and are a million are not on their way back; statistics above are of
# values whose squares come near float32's largest number, 3e38.
HUGE_WEIGHT = 1e6
HUGE_STATISTIC = 1e18


def findings(layer: LayerNumbers) -> tuple[str, ...]:
    """What is remarkable, in words, each with how many channels it holds for; empty if nothing is."""
    return tuple(_findings(layer))


def broken(layer: LayerNumbers) -> str | None:
    """Which weights hold what no sound training leaves, in words; `None` if none do."""
    for name, values in _arrays(layer).items():
        if (number := int(np.sum(~np.isfinite(values)))) > 0:
            return f"NaN or infinity in {name} ({_of(number, layer)})"
    if (number := int(np.sum(layer.moving_variance < 0))) > 0:
        return f"negative moving_variance ({_of(number, layer)})"
    for name, values in _arrays(layer).items():
        limit = HUGE_STATISTIC if name.startswith("moving") else HUGE_WEIGHT
        if (number := int(np.sum(np.abs(values) > limit))) > 0:
            return f"huge {name}, up to {np.abs(values).max():.2g} ({_of(number, layer)})"
    return None


def _arrays(layer: LayerNumbers) -> dict[str, np.ndarray]:
    named = {
        "gamma": layer.gamma,
        "beta": layer.beta,
        "moving_mean": layer.moving_mean,
        "moving_variance": layer.moving_variance,
    }
    return {name: values for name, values in named.items() if values is not None}


def _findings(layer: LayerNumbers) -> Iterator[str]:
    if (reason := broken(layer)) is not None:
        yield reason
    variance = layer.moving_variance
    if layer.at_initial_values:
        mean, start = layer.initial
        yield f"moving statistics at their initial values {mean:g} and {start:g}"
    if layer.gamma is not None:
        dead = np.abs(layer.gamma) < DEAD_GAMMA
        yield from _counted("dead: gamma near 0", dead, layer)
    still = (variance >= 0) & (variance <= DEAD_VARIANCE * layer.epsilon)
    yield from _counted("dead: variance near 0", still, layer)
    dominated = ~still & (variance >= 0) & (variance < DOMINATED_VARIANCE * layer.epsilon)
    yield from _counted("variance below epsilon", dominated, layer)
    scales = np.abs(layer.scales)
    finite = scales[np.isfinite(scales)]
    limit = max(
        EXPLODING_SCALE, EXPLODING_BESIDE_MEDIAN * float(np.median(finite)) if finite.size else 0
    )
    yield from _counted("exploding scale", np.isfinite(scales) & (scales > limit), layer, scales)


def _counted(
    what: str, where: np.ndarray, layer: LayerNumbers, values: np.ndarray | None = None
) -> Iterator[str]:
    if where.any():
        most = "" if values is None else f", up to {values[where].max():.3g}"
        yield f"{what} ({_of(int(where.sum()), layer)}{most})"


def _of(number: int, layer: LayerNumbers) -> str:
    return f"{number} of {layer.channels} channels"
