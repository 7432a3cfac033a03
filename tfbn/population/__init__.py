"""Population statistics: Algorithm 2, lines 7 to 10, of Ioffe & Szegedy (arXiv 1502.03167v3).

`statistics` drives the pass, `gauge` measures inside the model, `data` makes batches that Keras reads.
"""

from .statistics import PopulationStatistics, population_statistics, recalibrate

__all__ = ["PopulationStatistics", "population_statistics", "recalibrate"]
