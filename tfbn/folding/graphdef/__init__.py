"""The front end for TensorFlow's graphs: frozen ones, whose weights are constants in them.

`nodes` is a graph that can be changed, `facts` what is known of its tensors, `units` which nodes are one
thing (a convolution and its bias, a product and a sum that are a batch norm), `read` makes calls of the
core of them, by `tables`, `targets` and `attributes`, and `write` puts what was planned into the nodes.
`conditionals` takes out before what never runs.
"""

from .conditionals import settle
from .fold import fold_graph

__all__ = ["fold_graph", "settle"]
