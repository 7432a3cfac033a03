"""Pictures of reports, by matplotlib: readable with three batch norms and with three hundred."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .evidence import Evidence
from .layers import LayerNumbers
from .verdicts import DRIFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 16  # layers whose names fit under an axis
MOST_POINTS = 4000  # of a cloud: more only make it slow and black
COLORS = {
    "diverged": "#8c1515",
    "never updated": "#d62728",
    "other data": "#e377c2",
    "lagging": "#ff7f0e",
    "frozen": "#9467bd",
    "small batches": "#bc9d22",
    "fine": "#2a9d5c",
}
INK = "#33539c"


def figure() -> Figure:
    """An empty figure of no window.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as Drawn  # noqa: PLC0415  an extra, needed here only
    except ImportError as error:
        raise ImportError(
            "plot() draws with matplotlib, which is not installed: pip install 'tfbn[plot]', or pip "
            "install matplotlib. to_html() needs none."
        ) from error
    return Drawn(figsize=(12, 8), layout="constrained")


def draw_weights(title: str, layers: Sequence[LayerNumbers]) -> Figure:
    """Distributions of gamma, of the scales at inference and of the moving statistics, by layer."""
    drawn = figure()
    drawn.suptitle(title, wrap=True)
    axes = drawn.subplots(2, 2)
    _gammas_and_scales(axes[0], layers)
    _bands(axes[1, 0], layers, lambda layer: layer.moving_mean, "moving mean")
    _bands(axes[1, 1], layers, lambda layer: layer.moving_variance, "moving variance", log=True)
    return drawn


def draw_drift(title: str, verdicts: Mapping[str, str], seen: Sequence[Evidence]) -> Figure:
    """Drift by layer, moving against population variances, and what `draw_weights` has of gamma."""
    drawn = figure()
    drawn.suptitle(title, wrap=True)
    axes = drawn.subplots(2, 2)
    kinds = [verdicts[each.numbers.path] for each in seen]
    _drifts(axes[0, 0], seen, kinds)
    _variances(axes[0, 1], seen, kinds)
    _gammas_and_scales(axes[1], [each.numbers for each in seen])
    return drawn


def _drifts(axes: Any, seen: Sequence[Evidence], kinds: Sequence[str]) -> None:
    width = 0.8 if len(seen) <= 100 else 1.0
    axes.bar(
        np.arange(len(seen)),
        [each.drift for each in seen],
        width=width,
        color=[COLORS[kind] for kind in kinds],
    )
    axes.axhline(DRIFT, color="black", linestyle="--", linewidth=0.8)
    axes.set_title("drift of normalised values (dashed: fine up to here)", fontsize=10)
    for kind in dict.fromkeys(kinds):
        axes.bar(0, 0, color=COLORS[kind], label=kind)
    axes.legend(fontsize=8)
    _name_layers(axes, [each.numbers for each in seen])


def _variances(axes: Any, seen: Sequence[Evidence], kinds: Sequence[str]) -> None:
    total = sum(each.numbers.channels for each in seen)
    step = 1 + total // MOST_POINTS
    for kind in dict.fromkeys(kinds):
        of_kind = [each for each, other in zip(seen, kinds, strict=True) if other == kind]
        population = np.concatenate([each.population.variance for each in of_kind])[::step]
        moving = np.concatenate([each.moving.variance for each in of_kind])[::step]
        drawn = (population > 0) & (moving > 0) & np.isfinite(population) & np.isfinite(moving)
        axes.scatter(population[drawn], moving[drawn], s=6, alpha=0.6, color=COLORS[kind])
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = np.min([axes.get_xlim(), axes.get_ylim()]), np.max([axes.get_xlim(), axes.get_ylim()])
    axes.plot([low, high], [low, high], color="black", linestyle="--", linewidth=0.8)
    axes.set_title("variance of each channel (dashed: as it should be)", fontsize=10)
    axes.set_xlabel("of the data")
    axes.set_ylabel("moving")


def _gammas_and_scales(axes: Any, layers: Sequence[LayerNumbers]) -> None:
    _bands(axes[0], layers, lambda layer: layer.gamma, "gamma")
    _bands(
        axes[1],
        layers,
        lambda layer: np.abs(layer.scales),
        "scale at inference, |gamma| / sqrt(variance + epsilon)",
        log=True,
    )


def _bands(
    axes: Any,
    layers: Sequence[LayerNumbers],
    values: Callable[[LayerNumbers], np.ndarray | None],
    title: str,
    log: bool = False,
) -> None:
    """For each layer the median of its channels, and between which values most and all of them are."""
    at, rows = [], []
    for number, layer in enumerate(layers):
        found = values(layer)
        found = None if found is None else found[np.isfinite(found) & ((found > 0) | (not log))]
        if found is not None and found.size:
            at.append(number)
            rows.append(np.quantile(found, [0, 0.05, 0.5, 0.95, 1]))
    axes.set_title(f"{title}: median, 90 %, all", fontsize=10)
    _name_layers(axes, layers)
    if not rows:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
        return
    least, low, median, high, most = np.transpose(rows)
    if len(layers) <= 3 * FEW:
        axes.vlines(at, least, most, color=INK, linewidth=1)
        axes.vlines(at, low, high, color=INK, linewidth=5, alpha=0.4)
        axes.plot(at, median, "o", color=INK, markersize=4)
    else:
        axes.fill_between(at, least, most, color=INK, alpha=0.15, linewidth=0)
        axes.fill_between(at, low, high, color=INK, alpha=0.35, linewidth=0)
        axes.plot(at, median, color=INK, linewidth=1)
    if log:
        axes.set_yscale("log")


def _name_layers(axes: Any, layers: Sequence[LayerNumbers]) -> None:
    if len(layers) <= FEW:
        names = [layer.path if len(layer.path) <= 24 else f"…{layer.path[-23:]}" for layer in layers]
        axes.set_xticks(range(len(layers)), names, rotation=40, ha="right", fontsize=8)
    else:
        axes.set_xlabel("batch norm, in the model's order")
    axes.set_xlim(-0.6, len(layers) - 0.4)
