"""Population statistics: Algorithm 2, lines 7 to 10, of Ioffe & Szegedy (arXiv 1502.03167v3).

`measure` makes `Statistics` of a model and data, and of these one `Measurement`; `statistics` hands it
out, `recalibrate` assigns it. `data_pass` runs the model on all data, `accumulator` sums up inside it,
`untouched` puts it back, `shards` is what a part of the data amounts to, `checkpoint` a file of it,
`data` makes batches that Keras reads, and `observe` looks at one batch only.
"""

from .measure import measure
from .recalibrate import recalibrate
from .report import Measurement, PopulationStatistics
from .shards import Statistics
from .statistics import population_statistics

__all__ = [
    "Measurement",
    "PopulationStatistics",
    "Statistics",
    "measure",
    "population_statistics",
    "recalibrate",
]
