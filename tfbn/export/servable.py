"""A model as a function of named tensors, examined once before it is written in any format.

`from_keras` reads a Keras model; whatever comes behind it knows the `Servable` only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import layer_paths
from ..cloning import check_built
from ..compare import NamedArrays, is_finite, is_number, max_abs, wide
from ..data_format import check_kernels, explained, misplaced_biases
from ..declared_graph import declared_inputs, has_readable_graph
from ..folding.keras.read import called_in_training
from ..messages import join_some, one_line
from ..population.data_pass import input_shape
from ..population.observe import running_in_training
from ..population.untouched import untouched
from . import samples as sampling
from . import signature
from .tolerance import allowed, sensitivity_of


class Batch(NamedTuple):
    """Samples, structured as the model's inputs, and its outputs for them by name."""

    inputs: Any
    outputs: NamedArrays


class Run(Protocol):
    """Computes outputs, by name, from arrays that are structured as the model's inputs."""

    def __call__(self, inputs: Any, times: int = 1) -> NamedArrays:
        """The outputs of the last of several runs; the variables are as they were after them."""


@dataclass(frozen=True)
class Servable:
    """A model as a function of named tensors, and what it computes.

    Attributes:
        name: what messages call it.
        call: the function, to be traced: from inputs to outputs, both structured as the model's.
        owner: what holds the variables that `call` reads.
        run: the function, to be run.
        specs: a named `tf.TensorSpec` with a free batch size for each input, structured as the inputs.
        batches: samples and outputs to hold others against: all samples and, unless it was asked not
            to, the first one alone.
        sensitivity: how far the outputs move, relative to their size, when the inputs move by their
            last digit; `None` where no input holds fractions.
        compute_dtypes: the types in which its layers compute.
        in_training: the layers that it runs as in training.
        random_layers: the layers that draw random numbers.
        is_stateful: whether a second call may give other outputs.
        free_steps: the TimeDistributed layers whose number of steps is not declared.
    """

    name: str
    call: Callable[[Any], Any]
    owner: Any
    run: Run
    specs: Any
    batches: tuple[Batch, ...]
    sensitivity: float | None
    compute_dtypes: frozenset[str]
    in_training: tuple[str, ...]
    random_layers: tuple[str, ...]
    is_stateful: bool
    free_steps: tuple[str, ...]

    @property
    def rtol(self) -> float:
        """The difference that is allowed unless told, relative to the outputs' size."""
        return allowed(self.compute_dtypes, self.sensitivity)

    @property
    def sample_count(self) -> int:
        """The number of samples."""
        return len(tf.nest.flatten(self.batches[0].inputs)[0])

    def by_name(self, inputs: Any) -> NamedArrays:
        """Inputs that are structured as the model's by the signature's names."""
        pairs = zip(tf.nest.flatten(self.specs), tf.nest.flatten(inputs), strict=True)
        return {spec.name: array for spec, array in pairs}

    def output_variation(self) -> float | None:
        """See `output_variation`."""
        return output_variation(self.batches[0].outputs)


def output_variation(outputs: NamedArrays) -> float | None:
    """How far apart the samples' outputs are, relative to their size, where they vary least.

    `None` if there is one sample only, or no output is a number.
    """
    arrays = [wide(array) for array in outputs.values() if is_number(array) and array.ndim]
    several = [array for array in arrays if len(array) > 1]
    apart = (max_abs(array - array[:1]) / (max_abs(array) or 1.0) for array in several)
    return min(apart, default=None)


def check_model(model: object) -> None:
    """Refuse what cannot be exported whatever its samples are.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built; a stateful RNN; a bias that Keras may add along the wrong axis.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
    """
    check_built(model, "export", "export")
    assert isinstance(model, keras.Model)
    for path, layer in layer_paths(model).items():
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise ValueError(
                f"The layer {path!r} ({type(layer).__name__}) is stateful, so its batch size is fixed, "
                "and a signature's is free. Make it with stateful=False, and set its weights."
            )
    check_kernels(model)
    if misplaced := misplaced_biases(model):
        raise ValueError(
            f"The outputs of {join_some(misplaced)} are as long along the last axis as they have "
            "channels. Keras adds the bias of a channels-first layer along that axis then, in some runs "
            "and not in others, so that nothing can be compared. Set these biases to 0 and train on, or "
            "take images of another size."
        )


def from_keras(
    model: keras.Model,
    samples: Any = None,
    input_names: Sequence[str] | None = None,
    at_inference: bool = False,
    any_batch_size: bool = True,
) -> Servable:
    """Examine a built Keras model: name its inputs, and run it on samples.

    Args:
        samples, input_names: as `tfbn.export` takes them.
        at_inference: whether layers that the model calls with training=True run as at inference, too.
        any_batch_size: whether it must run on a single sample, too.

    Raises:
        ValueError: it does not run on the samples, gives values that are not finite, or none can be
            drawn; `samples` or `input_names` do not fit it.
        RuntimeError: TensorFlow lacks a kernel for it on this machine.
    """
    declared = declared_inputs(model) if has_readable_graph(model) else None
    inputs = _sample_inputs(model, declared, samples, input_names)
    in_training = () if at_inference else _run_as_in_training(model, inputs)
    # Layers of augmentation train unless told, so that Keras' own export of them is random.
    training = None if in_training else False
    run = partial(_run, model, training)
    parts = [inputs, sampling.first(inputs)] if any_batch_size else [inputs]
    batches = []
    for part in parts:
        batches.append(Batch(part, run(part)))
        check_finite(batches[-1])
    layers = layer_paths(model)
    return Servable(
        name=model.name,
        call=partial(model, training=training),
        owner=model,
        run=run,
        specs=signature.input_specs(inputs if declared is None else declared, input_names),
        batches=tuple(batches),
        sensitivity=sensitivity_of(run, *batches[0]),
        compute_dtypes=_compute_dtypes(model),
        in_training=in_training,
        random_layers=tuple(path for path, layer in layers.items() if _draws_random_numbers(layer)),
        is_stateful=any(getattr(layer, "stateful", False) for layer in layers.values()),
        free_steps=tuple(path for path, layer in layers.items() if _has_free_steps(layer)),
    )


def in_place_of(servable: Servable, model: keras.Model) -> Servable:
    """A model that should compute the same, with the same inputs, samples and outputs."""
    training = None if servable.in_training else False
    return replace(
        servable,
        name=model.name,
        call=partial(model, training=training),
        owner=model,
        run=partial(_run, model, training),
        compute_dtypes=_compute_dtypes(model),
    )


def check_finite(batch: Batch) -> None:
    """Refuse outputs that nothing can be compared with.

    Raises:
        ValueError: one is NaN or infinite.
    """
    for name, array in batch.outputs.items():
        if not is_finite(array):
            inputs = [np.asarray(given) for given in tf.nest.flatten(batch.inputs)]
            if all(np.isfinite(given).all() for given in inputs if given.dtype.kind in "fc"):
                what = "Pass samples= that give finite outputs, or mend the weights"
            else:
                what = "The samples hold NaN or infinity themselves: pass others"
            raise ValueError(
                f"The model's {name} is NaN or infinite on the sample inputs, so nothing can be "
                f"compared. {what}."
            )


def _sample_inputs(
    model: keras.Model, declared: Any, samples: Any, input_names: Sequence[str] | None
) -> Any:
    if samples is not None:
        if declared is None:
            return sampling.as_arrays(samples)
        return sampling.arrange(declared, samples, input_names)
    if declared is None:
        raise ValueError(
            f"The inputs of {model.name!r} ({type(model).__name__}) are not declared, so no samples can "
            "be drawn. Pass samples=, a small batch of its inputs."
        )
    return sampling.draw(declared)


def _run(model: keras.Model, training: bool | None, inputs: Any, times: int = 1) -> NamedArrays:
    """See `Run`. `training=None` lets layers run as in training that the model calls so."""
    try:
        with untouched(model):
            for _ in range(times):
                outputs = model(inputs, training=training)
    except Exception as error:
        if (lacking := explained(error)) is not None:
            raise RuntimeError(lacking) from error
        raise ValueError(
            f"The model {model.name!r} does not run on the sample inputs. Pass samples=, a small batch "
            "of inputs that it takes; it must run on any batch size, one included. It says: "
            f"{one_line(error)}"
        ) from error
    named = signature.outputs_by_name(outputs)
    return {name: tf.convert_to_tensor(output).numpy() for name, output in named.items()}


def _run_as_in_training(model: keras.Model, inputs: Any) -> tuple[str, ...]:
    """The layers that an open model calls with training=True, and the batch norms that train with them.

    None where its graph cannot be read.
    """
    if not has_readable_graph(model):
        return ()
    names = {id(layer): path for path, layer in layer_paths(model).items()}
    try:
        called = called_in_training(model)
    except ValueError:  # of an argument without a configuration, which an export does not need
        return ()
    found = [
        names[id(layer)] for layer in called if id(layer) in names and not _trains_unless_told(layer)
    ]
    return tuple(dict.fromkeys([*found, *running_in_training(model, inputs)])) if found else ()


def _trains_unless_told(layer: keras.layers.Layer) -> bool:
    """Whether a layer, of augmentation usually, has `training=True` as its default."""
    parameter = inspect.signature(type(layer).call).parameters.get("training")
    return parameter is not None and parameter.default is True


def _compute_dtypes(model: keras.Model) -> frozenset[str]:
    layers = [model, *layer_paths(model).values()]
    return frozenset(layer.compute_dtype for layer in layers)


def _draws_random_numbers(layer: keras.layers.Layer) -> bool:
    return any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values())


def _has_free_steps(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.TimeDistributed and input_shape(layer)[:1] == (None,)
