"""Population statistics: Algorithm 2, lines 7 to 10, of Ioffe & Szegedy (arXiv 1502.03167v3).

`measure` makes one `Measurement` of a model and data; `statistics` hands it out, `recalibrate` assigns
it. `data_pass` runs the model on all data, `accumulator` sums up inside it, `untouched` puts it back,
`data` makes batches that Keras reads, and `observe` looks at one batch only.
"""

from .recalibrate import recalibrate
from .report import Measurement, PopulationStatistics
from .statistics import population_statistics

__all__ = ["Measurement", "PopulationStatistics", "population_statistics", "recalibrate"]
