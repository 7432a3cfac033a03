"""Built layers with weights that are not trivial."""

import reference
import tfbn

RULES = {"rtol": 1e-5, "atol": 1e-5}  # float32 outputs of size 1 to 10


def built(shape, axis=-1, **arguments):
    """A built layer with random gamma, beta and moving statistics, and those as oracle arguments."""
    layer = tfbn.BatchNorm(axis=axis, **arguments)
    layer.build((None, *shape[1:]))
    p = reference.parameters(tuple(layer.moving_mean.shape))
    for name, variable in (
        ("gamma", layer.gamma),
        ("beta", layer.beta),
        ("mean", layer.moving_mean),
        ("variance", layer.moving_variance),
    ):
        if variable is None:
            p[name] = None
        else:
            variable.assign(p[name])
    return layer, p
