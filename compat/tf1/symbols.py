"""What stands for which name of TensorFlow 1: one table for namespace, import hook, rewriter and docs.

Names are as TensorFlow 1 had them, without `tensorflow.` before: `contrib.layers`. Neither TensorFlow
nor tf_slim is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HERE = "tfbn.compat.tf1"  # what stands for `tensorflow`


@dataclass(frozen=True)
class Module:
    """What stands for a module.

    Attributes:
        sources: modules that its names are looked up in, in order.
        names: those that are elsewhere, as `"module:attribute"`.
        differs: what is not as it was, by name; for the documentation and the rewriter.
    """

    sources: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)


V1 = "tensorflow.compat.v1"
OURS = {"batch_norm": f"{HERE}.contrib_batch_norm:last_batch_norm"}
SCOPES = {name: f"{HERE}.arg_scope:{name}" for name in ("arg_scope", "add_arg_scope", "has_arg_scope")}
SCOPES |= {
    name: f"tf_slim:{name}"
    for name in ("arg_scoped_arguments", "arg_scope_func_key", "current_arg_scope")
}
STATISTICS = {
    "batch_norm": "stores the unbiased variance as contrib 1.4 to 1.15 did; fused=False the biased one, "
    "as earlier releases and slim's first; variables, updates and numbers are the original's"
}
_INITIALIZERS = Module(("tf_slim.layers.initializers",))
_REGULARIZERS = Module(("tf_slim.layers.regularizers",))
_LAYERS = Module(
    ("tf_slim.layers",), OURS | SCOPES | {"l2_normalize": f"{V1}.nn:l2_normalize"}, STATISTICS
)
_SLIM = Module(("tf_slim",), OURS | SCOPES, STATISTICS)
_VARIABLES = Module(("tf_slim.ops.variables",))
_ARG_SCOPE = Module(("tf_slim.ops.arg_scope",), SCOPES)
_OF_TENSORFLOW = (
    "nest sort argsort is_tensor placeholder py_func convert_to_tensor_or_sparse_tensor CriticalSection "
    "TensorSpec"
)
_FRAMEWORK = Module(
    ("tf_slim.ops.variables", "tf_slim.ops.framework_ops"),
    SCOPES
    | {
        "get_or_create_global_step": f"{V1}.train:get_or_create_global_step",
        "get_global_step": f"{V1}.train:get_global_step",
        "init_from_checkpoint": f"{V1}.train:init_from_checkpoint",
        "load_checkpoint": f"{V1}.train:load_checkpoint",
        "load_variable": f"{V1}.train:load_variable",
        "list_variables": f"{V1}.train:list_variables",
        "assert_same_float_dtype": f"{V1}.debugging:assert_same_float_dtype",
        "assert_scalar": f"{V1}.debugging:assert_scalar",
        **{name: f"{V1}:{name}" for name in _OF_TENSORFLOW.split()},
    },
)
_UTILS = Module(("tf_slim.layers.utils",))
_TRAINING = Module(("tf_slim.training", "tf_slim.training.training"))

MODULES: dict[str, Module] = {
    "contrib": Module(),
    "contrib.layers": _LAYERS,
    "contrib.slim": _SLIM,
    "contrib.slim.nets": Module(("tf_slim.nets",)),
    "contrib.framework": _FRAMEWORK,
    "contrib.losses": Module(("tf_slim.losses",)),
    "contrib.metrics": Module(("tf_slim.metrics",)),
    "contrib.training": _TRAINING,
    "contrib.eager": Module((), {name: f"{V1}:{name}" for name in ("Variable", "py_func")}),
    "contrib.lookup": Module((f"{V1}.lookup",)),
    "contrib.data": Module((f"{V1}.data", f"{V1}.data.experimental")),
    "contrib.distributions": Module((f"{V1}.distributions",)),
    "contrib.summary": Module((f"{V1}.summary",)),
    "contrib.saved_model": Module((f"{V1}.saved_model",)),
    "contrib.keras": Module(("keras",)),
}
# The files in which contrib kept its packages, which programs import from, too.
for _package, _inside in (
    *(("layers", "layers"), ("framework", "ops"), ("slim", "slim")),
    *(("losses", "losses"), ("metrics", "ops"), ("training", "training")),
):
    for _path in ("python", f"python.{_inside}"):
        MODULES[f"contrib.{_package}.{_path}"] = MODULES[f"contrib.{_package}"]
MODULES |= {
    "contrib.layers.python.layers.layers": _LAYERS,
    "contrib.layers.python.layers.initializers": _INITIALIZERS,
    "contrib.layers.python.layers.regularizers": _REGULARIZERS,
    "contrib.layers.python.layers.utils": _UTILS,
    "contrib.layers.python.layers.normalization": Module(("tf_slim.layers.normalization",)),
    "contrib.layers.python.layers.optimizers": Module(("tf_slim.layers.optimizers",)),
    "contrib.framework.python.ops.arg_scope": _ARG_SCOPE,
    "contrib.framework.python.ops.variables": _VARIABLES,
    "contrib.losses.python.losses.loss_ops": MODULES["contrib.losses"],
    "contrib.metrics.python.ops.metric_ops": MODULES["contrib.metrics"],
    "contrib.training.python.training.training": _TRAINING,
    "contrib.slim.python.slim.learning": Module(("tf_slim.learning",)),
    "contrib.slim.python.slim.evaluation": Module(("tf_slim.evaluation",)),
    "contrib.slim.python.slim.nets": Module(("tf_slim.nets",)),
    "contrib.slim.python.slim.data": Module(("tf_slim.data",)),
}
for _network in (
    *("alexnet", "inception", "inception_v1", "inception_v2", "inception_v3", "overfeat"),
    *("resnet_utils", "resnet_v1", "resnet_v2", "vgg"),
):
    MODULES[f"contrib.slim.nets.{_network}"] = Module((f"tf_slim.nets.{_network}",))
    MODULES[f"contrib.slim.python.slim.nets.{_network}"] = MODULES[f"contrib.slim.nets.{_network}"]

# What TensorFlow 1 had, and nothing here stands for: what to do.
GONE: dict[str, str] = {
    "contrib.rnn": "Use keras.layers.LSTM, GRU or RNN: TensorFlow 2.16 and later have no cells of "
    "TensorFlow 1.",
    "contrib.seq2seq": "tensorflow-addons has had it, for TensorFlow up to 2.15.",
    "contrib.crf": "tensorflow-addons has had it, for TensorFlow up to 2.15.",
    "contrib.image": "Use tf.image, or keras.layers.RandomRotation and the like.",
    "contrib.opt": "Use keras.optimizers (AdamW, LAMB, …), or tf.train in graphs.",
    "contrib.learn": "Use Keras' fit, or a loop over sessions.",
    "contrib.estimator": "Estimators ended with TensorFlow 2.15: call the model function yourself.",
    "contrib.tpu": "Use tf.distribute.TPUStrategy.",
    "contrib.cudnn_rnn": "Use keras.layers.LSTM or GRU, which use cuDNN by themselves.",
    "contrib.quantize": "Use the ai-edge-quantizer or tensorflow-model-optimization packages.",
    "contrib.tensorrt": "Use tf.experimental.tensorrt of TensorFlow 2 builds that have it.",
    "contrib.lite": "Use tf.lite, or tfbn.export(model, 'm.tflite').",
    "contrib.predictor": "Use tf.saved_model.load(path).signatures.",
    "contrib.graph_editor": "Nothing replaces it.",
    "contrib.ffmpeg": "Use the tensorflow-io package.",
    "contrib.tensorboard": "Use the tensorboard package: tensorboard.plugins.projector.",
    "contrib.cluster_resolver": "Use tf.distribute.cluster_resolver.",
    "contrib.distribute": "Use tf.distribute.",
    "contrib.layers.feature_column": "Use tf.feature_column.",
    "contrib.training.HParams": "Use a dataclass, or types.SimpleNamespace.",
    "estimator": "Estimators ended with TensorFlow 2.15: call the model function yourself.",
    "examples.tutorials.mnist": "Use keras.datasets.mnist.load_data().",
    "examples.tutorials": "TensorFlow's examples are no longer part of it.",
    "examples": "TensorFlow's examples are no longer part of it.",
}


def module_of(path: str) -> Module | None:
    """What stands for a module, `"contrib.layers"`; `None` if nothing does."""
    return MODULES.get(path)


def location(path: str, name: str) -> str | None:
    """Where a name of a module is, as `"module:attribute"`, if the table says it of the name itself."""
    module = MODULES.get(path)
    return module.names.get(name) if module is not None else None


def gone(path: str) -> str | None:
    """What to do without a module or name that nothing stands for: a sentence; `None` if not known."""
    parts = path.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((GONE[name] for name in names if name in GONE), None)
