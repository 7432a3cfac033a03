"""Population statistics: Algorithm 2, lines 7 to 10, of Ioffe & Szegedy (arXiv 1502.03167v3).

`statistics` is what users call, `measure` drives the pass, `accumulator` sums up inside the model,
`untouched` puts the model back, `data` makes batches that Keras reads.
"""

from .statistics import Measurement, PopulationStatistics, population_statistics, recalibrate

__all__ = ["Measurement", "PopulationStatistics", "population_statistics", "recalibrate"]
