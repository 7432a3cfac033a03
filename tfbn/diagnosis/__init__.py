"""What is wrong with a model's batch norms, in words, numbers and pictures.

`layers` reads a model's batch norms as plain numbers, and `weights` looks at these alone, for `inspect`.
`diagnose` lets the data through, where `scatter` sums up; `evidence` is what is then known of each batch
norm, `verdicts` says what that means, and `effect` what recalibration would do.
"""

from .diagnose import diagnose
from .diagnosis import Diagnosis, LayerDiagnosis
from .inspect import inspect
from .inspection import Inspection, LayerInspection

__all__ = ["Diagnosis", "Inspection", "LayerDiagnosis", "LayerInspection", "diagnose", "inspect"]
