"""Weights as constants of the SavedModel's graph.

TensorFlow's optimizer then prepares them once, before the first answer, and fuses what it cannot fuse
with variables. Answers come sooner, and the SavedModel takes more memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..batch_norms import some

Call = Callable[[Any], Any]

# What Keras puts into the errors of layers: bold print, and at last all arguments.
DECORATION = re.compile(r"\x1b\[\d*m|Arguments received by .*", re.DOTALL)

# Weights of at most so many bytes become constants unless told otherwise. Serving ResNet50, TensorFlow
# 2.21 takes 16 times their size at first and 9 times from then on, where it takes 3 times for variables.
AUTOMATIC = 128 * 2**20

# A protocol buffer ends at 2 GiB, and the rest of the graph is in it too.
POSSIBLE = 2**31 - 2**26


def archive(
    model: keras.Model, call: Call, specification: Any, freeze: bool | None
) -> tuple[keras.export.ExportArchive, str]:
    """What Keras writes as a SavedModel: `call`, of the specification, with what it needs.

    Args:
        call: calls the model.
        freeze: as `tfbn.export` takes it.

    Returns:
        The archive, and why the weights are variables in it; `""` where they are constants.

    Raises:
        ValueError: `freeze` is true, and they cannot be constants.
    """
    reason = reason_for_variables(model, freeze)
    if not reason:
        try:
            return _with_constants(model, call, specification), ""
        except Exception as error:  # Layers that need variables may raise anything.
            what = " ".join(DECORATION.sub("", str(error)).split())
            if freeze:
                raise ValueError(
                    f"The weights of {model.name!r} cannot be constants: {what} Leave freeze= out."
                ) from error
            reason = f"they cannot be constants: {what}"
    return _with_variables(model, call, specification), reason


def reason_for_variables(model: keras.Model, freeze: bool | None) -> str:
    """Why the weights have to stay variables of the SavedModel; `""` if they may become constants.

    Raises:
        ValueError: `freeze` is true, and they are too large for that.
    """
    size = sum(math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in model.variables)
    if freeze and size > POSSIBLE:
        raise ValueError(
            f"The weights of {model.name!r} are {size / 1e9:.1f} GB, and a SavedModel's graph holds at "
            f"most {POSSIBLE / 1e9:.1f} GB of constants. Leave freeze= out."
        )
    if freeze is False:
        return "freeze=False"
    if freeze is None and size > AUTOMATIC:
        told = "" if size > POSSIBLE else "; freeze=True makes them constants all the same"
        return f"they are {size / 1e6:.0f} MB, above {AUTOMATIC / 1e6:.0f} MB{told}"
    return ""


def _with_constants(model: keras.Model, call: Call, specification: Any) -> keras.export.ExportArchive:
    variables = model.variables
    values = [(one, keras.ops.convert_to_numpy(one)) for one in variables]
    written: list[str] = []

    def call_with_constants(inputs: Any) -> Any:
        with keras.StatelessScope(values) as scope:
            constants = [scope.get_current_value(one) for one in variables]
            outputs = call(inputs)
        pairs = zip(variables, constants, strict=True)
        written.extend(one.path for one, given in pairs if scope.get_current_value(one) is not given)
        return outputs

    archive = _archive(model, call_with_constants, specification)
    if written:
        raise ValueError(f"a call writes to {some(written)}.")
    return archive


def _with_variables(model: keras.Model, call: Call, specification: Any) -> keras.export.ExportArchive:
    archive = _archive(model, call, specification)
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        archive.add_variable_collection(name, [one.value for one in getattr(model, name)])
    return archive


def _archive(model: keras.Model, call: Call, specification: Any) -> keras.export.ExportArchive:
    archive = keras.export.ExportArchive()
    # For its tables. Of a model as such, Keras would write each variable twice.
    tables = tf.Module()
    tables.model = model
    archive.track(tables)
    archive.add_endpoint("serve", call, input_signature=[specification]).get_concrete_function()
    return archive
