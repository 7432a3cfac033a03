"""The algorithm, on a graph that any front end can fill: NumPy only, neither Keras nor TensorFlow.

A batch norm at inference is an `Affine` map. `search` moves it backwards or forwards over a `Graph`, by
the rules of `propagation` and `combining`, to calls whose `FoldTarget` takes it up; `plan` does so for
all batch norms. `kernel_arithmetic` is the arithmetic of a kernel that takes maps up.
"""
