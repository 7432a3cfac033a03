"""Swap Keras' batch norms for ours, and back, in a copy or in place; turn a model to channels last."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import keras

from .arguments import valid_flag
from .batch_norms import AnyBatchNorm, batch_norms, is_batch_norm, layer_paths
from .cloning import CloneAction, check_built, rebuild
from .copying import configuration
from .data_format import to_channels_last
from .declared_graph import functional_class, has_readable_graph
from .in_place import set_kernels
from .layer import BatchNorm
from .messages import join_some
from .renorm import BatchRenorm

# The arguments that have the same name in both layers.
SHARED: tuple[str, ...] = (
    "name",
    "trainable",
    "dtype",
    "axis",
    "epsilon",
    "center",
    "scale",
    "synchronized",
)
SHARED += tuple(f"{name}_initializer" for name in ("beta", "gamma", "moving_mean", "moving_variance"))
SHARED += tuple(f"{name}_{kind}" for name in ("beta", "gamma") for kind in ("regularizer", "constraint"))

OBJECTS = ("_initializer", "_regularizer", "_constraint")


def convert(
    model: keras.Model,
    to: type[keras.layers.Layer] | None = None,
    data_format: str | None = None,
    in_place: bool = False,
) -> keras.Model:
    """A copy of a model with other batch norms, or with every layer channels last, or both.

    With `in_place=True`, no copy but the model itself, its batch norms computed by other kernels.

    `to` replaces batch norms, in nested models too. Weights, names, initialisers, regularisers,
    constraints, frozen flags and precision are carried over. Batch norms that are of the class already,
    those inside a layer around TF1 code, and all other layers are copied with their weights. Keras 1's
    layer of mode 0 (`compat.BatchNormalization`) is replaced, too. `tfbn.BatchNorm` stores the biased
    variance as Keras 3 does, so that training goes on as before.

    `data_format="channels_last"` makes every channels-first layer channels last: some processors have no
    channels-first kernels in TensorFlow, and channels-last models fold completely. Inputs and outputs
    keep their layout, layers their names and weights; weights with several axes of the tensor, as those
    of PReLU, are transposed with it. Permute layers are added at inputs, at outputs, and before layers
    that read a sample in order, as Flatten does. A Permute that the model had becomes an Identity. An
    activation that depends on the order of axes, as softmax, becomes a layer after its convolution.

    * Where an image is as wide as a layer has channels, Keras adds that layer's bias along the wrong
      axis; channels last, it is added to the channels. A model in which that is known to happen with a
      bias that is not 0 is refused. In images of unknown size it cannot be known.
    * The order of layers may change, and with it that of `get_weights()` and of a weights file. Load
      weights into the given model and then convert it, or copy variables by their `path`.
    * Losses by name of the output work on the returned model. Once it is saved and loaded, Keras names
      such an output after the layer that was added behind it: compile the model anew then. Keys of a
      dictionary of outputs stay.

    `in_place` takes every model, also one with a `call` of its own and one with batch norms inside
    custom layers: the instances of `keras.layers.BatchNormalization`, wherever they are, stay the same
    objects and compute the same up to rounding, with the kernels of `tfbn.BatchNorm`. Variables,
    optimizer, names and callbacks stay, too. The model is saved as the stock model that it is and loads,
    with Keras' own kernels, without tfbn; its clones and deep copies have Keras' own kernels as well.
    `convert(model, to=keras.layers.BatchNormalization, in_place=True)` gives it those back.

    * A compiled model goes on as it is: `fit`, `evaluate` and `predict` are traced anew. What else holds
      traces of it does not notice: a compiled model around it (convert that one, or call its
      `make_train_function(force=True)`) and a `tf.function` of your own (make a new one).
    * Keras' own code goes on to compute calls with a mask, and training with `renorm=True` or, on
      several replicas, with `synchronized=True`.

    Args:
        model: a built Sequential or Functional model, which is not changed, nor is its optimizer; with
            `in_place`, any built `keras.Model`.
        to: `tfbn.BatchNorm` (`tfbn.BatchRenorm` for Keras' layers with `renorm=True`), or
            `keras.layers.BatchNormalization` for a model that loads without tfbn. `None` is
            `tfbn.BatchNorm`; with a `data_format`, batch norms are not replaced then.
        data_format: "channels_last", or `None` to leave that of each layer.
        in_place: whether to change how the given model is computed, in place of making another one.
            It goes without `data_format`.

    Returns:
        With `in_place`, the given model. Otherwise a new one that shares nothing with it. That is not
        compiled, because an optimizer belongs to the weights of its model: compile it as the given model
        was.

    Warns:
        UserWarning: there are subclasses of batch norms, which are copied unchanged; with `in_place`,
            subclasses that compute something of their own or, on the way back, layers of tfbn's own.

    Raises:
        TypeError: `to` is neither class; `in_place` is neither True nor False; without `in_place`, the
            model, or a nested one, is no plain Sequential or Functional model.
        ValueError: the model is not built; `in_place` with a `data_format`; or, without `in_place`, a
            layer cannot be copied; a batch norm is inside a layer whose graph cannot be read, or
            the other class cannot express it (`unbiased=True`; several axes; in Keras before 3.14
            `BatchRenorm`); `data_format` is another; a layer cannot be made channels last.

    >>> import tfbn
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
    >>> type(tfbn.convert(model).layers[0]).__name__
    'BatchNorm'
    """
    in_place = valid_flag("in_place", in_place)
    _check_arguments(model, to, data_format, in_place)
    if in_place:
        _change_kernels(model, ours=to is not keras.layers.BatchNormalization)
        return model
    _check_readable(model, _in_place_remedy(to, data_format))
    if data_format is None:
        return _with_batch_norms(model, BatchNorm if to is None else to)
    turned = to_channels_last(model)
    return turned if to is None else _with_batch_norms(turned, to)


def _change_kernels(model: keras.Model, ours: bool) -> None:
    left = set_kernels(model, ours)
    if not left:
        return
    why = (
        "subclasses of a batch norm that compute something of their own, or batch norms with a call() "
        "set on the instance. Replace them in the code that makes them, if they need not be."
        if ours
        else "tfbn's own layers, which are no stock layers with other kernels. Without in_place=True, "
        "they are replaced in a copy of a Sequential or Functional model."
    )
    warnings.warn(f"Left as they are: {join_some(left)}, {why}", stacklevel=3)


def _in_place_remedy(to: object, data_format: object) -> str:
    """What to do instead with a model that cannot be copied; `""` where nothing can be done."""
    if data_format is not None or to not in (None, BatchNorm):
        return ""
    return " Or leave the layers as they are and change their kernels only: in_place=True."


def _with_batch_norms(model: keras.Model, to: type[keras.layers.Layer]) -> keras.Model:
    pairs: list[tuple[AnyBatchNorm, AnyBatchNorm]] = []
    left = _subclasses(model)

    def choose(layer: keras.layers.Layer) -> keras.layers.Layer | CloneAction:
        if not is_batch_norm(layer) or id(layer) in left:
            return CloneAction.COPY
        plain = layer.as_batch_norm() if hasattr(layer, "as_batch_norm") else layer
        if plain is layer and isinstance(layer, to):
            return CloneAction.COPY
        kind = BatchRenorm if to is BatchNorm and getattr(layer, "renorm", False) else to
        new = plain if type(plain) is kind else kind(**_translated(plain))
        pairs.append((layer, new))
        return new

    remedy = _in_place_remedy(to, None)
    try:
        new_model, clones = rebuild(model, choose)
    except ValueError as error:  # a layer that cannot be made anew, for one
        raise ValueError(f"{str(error).rstrip('.')}.{remedy}") from error
    found = batch_norms(model, inside=False)
    hidden = [path for path, layer in found.items() if id(layer) not in clones and id(layer) not in left]
    if hidden:
        raise ValueError(
            f"The batch norms {', '.join(hidden)} are inside layers whose graph Keras does not show and "
            f"cannot be replaced from outside. Replace them in the code of those layers.{remedy}"
        )
    if left:
        warnings.warn(
            f"Left as they are: {join_some(list(left.values()))}, subclasses of a batch norm that may "
            "compute other things. Replace them in the code that makes them, if they do not.",
            stacklevel=3,
        )
    for old, new in pairs:
        new.activity_regularizer = old.activity_regularizer  # which Keras' configuration leaves out
        new.set_weights(old.get_weights())
    return new_model


def _subclasses(model: keras.Model) -> dict[int, str]:
    """The paths, by `id`, of subclasses of batch norms; not Keras 1's, which are translated."""
    known = (BatchNorm, BatchRenorm, keras.layers.BatchNormalization)
    return {
        id(layer): path
        for path, layer in layer_paths(model).items()
        if isinstance(layer, AnyBatchNorm)
        and type(layer) not in known
        and not hasattr(layer, "not_a_batch_norm_because")
    }


def _translated(layer: AnyBatchNorm) -> dict[str, Any]:
    """The arguments with which the other class makes an equal layer."""
    config = configuration(layer)
    shared = {name: config[name] for name in SHARED if name in config}
    # As objects, for not every function can be serialised.
    shared |= {name: getattr(layer, name) for name in SHARED if name.endswith(OBJECTS)}
    shared |= {name: bool(config[name]) for name in ("center", "scale")}
    if isinstance(layer, BatchNorm):
        axes = layer.axis if isinstance(layer.axis, list) else [layer.axis]
        if layer.unbiased or len(axes) > 1:
            what = "unbiased=True" if layer.unbiased else f"axis={layer.axis}"
            raise ValueError(
                f"{layer.name!r} has {what}, which Keras' BatchNormalization does not know."
            )
        return shared | {"momentum": layer.decay, "axis": axes[0]} | _stock_renorm(layer)
    if config.get("renorm"):
        bounds = dict(layer.renorm_clipping or {})
        if (bounds.get("rmin") or 0) < 0:  # r is positive: no bound
            del bounds["rmin"]
        shared |= {"renorm_decay": layer.renorm_momentum, **bounds}
    return shared | {"decay": layer.momentum}


def _stock_renorm(layer: BatchNorm) -> dict[str, Any]:
    """The arguments of Keras' layer for renormalisation."""
    if not isinstance(layer, BatchRenorm):
        return {}
    if "renorm" not in inspect.signature(keras.layers.BatchNormalization).parameters:
        raise ValueError(
            f"{layer.name!r} is a BatchRenorm, and BatchNormalization has no renorm= in Keras "
            f"{keras.__version__}. Convert with Keras 3.14 or later."
        )
    bounds = {"rmin": layer.rmin, "rmax": layer.rmax, "dmax": layer.dmax}
    clipping = {name: value for name, value in bounds.items() if value is not None}
    return {"renorm": True, "renorm_clipping": clipping, "renorm_momentum": layer.renorm_decay}


def _check_arguments(model: object, to: object, data_format: object, in_place: bool) -> None:
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f"data_format must be 'channels_last' or None, received {data_format!r}. Models are turned "
            "to channels last only, which TensorFlow runs on every processor."
        )
    if to not in (None, BatchNorm, keras.layers.BatchNormalization):
        raise TypeError(
            f"to must be tfbn.BatchNorm or keras.layers.BatchNormalization, received {to!r}."
        )
    if in_place and data_format is not None:
        raise ValueError(
            "in_place=True and data_format= exclude each other, for layers channels last are other "
            f"layers; received data_format={data_format!r}. Convert the data format first, without "
            "in_place, and then the new model with it."
        )
    check_built(model, "convert", "carry over")


def _check_readable(model: keras.Model, remedy: str) -> None:
    """Raise an error unless the graphs of a model and of those inside it are Keras' own."""
    plain = (keras.Sequential, keras.Model, functional_class())
    for layer in [model, *layer_paths(model).values()]:
        if has_readable_graph(layer) and type(layer) not in plain:
            raise TypeError(
                f"The model {layer.name!r} is a {type(layer).__name__}, whose training may be its own "
                "and would be lost in a copy. Change its layers in the code of the class." + remedy
            )
    if not has_readable_graph(model):
        raise TypeError(
            f"The graph of the model {model.name!r} ({type(model).__name__}) cannot be read: it has a "
            "call() of its own, or declares no inputs. Change its layers in the code of the class."
            + remedy
        )
