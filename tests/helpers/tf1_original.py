"""A program of TensorFlow 1 run with the originals: tf_slim's layers as contrib, tf_keras' as tf.layers.

    python tests/helpers/tf1_original.py PROGRAM.py ARGUMENTS

What `python -m tfbn.compat.run` is compared with. Nothing of tfbn is imported.
"""

import os
import sys

# Before TensorFlow is imported: tf.layers lives on in tf_keras only.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import importlib
import runpy
from types import ModuleType

import tensorflow as tf

import tf1_programs

v1 = tf.compat.v1
PLACES = {
    "layers": "tf_slim.layers",
    "layers.python.layers": "tf_slim.layers",
    "framework": "tf_slim",
    "framework.python.ops": "tf_slim",
    "slim": "tf_slim",
    "slim.nets": "tf_slim.nets",
    "slim.nets.resnet_v1": "tf_slim.nets.resnet_v1",
    "layers.python.layers.initializers": "tf_slim.layers.initializers",
}
# What TensorFlow 1 had as modules beside contrib.
MODULES = ("layers", "nn")


def stand_in(name, module):
    """A module of another name with a module's attributes."""
    made = ModuleType(f"tensorflow.{name}")
    vars(made).update({key: value for key, value in vars(module).items() if key[:2] != "__"})
    made.__path__ = []
    sys.modules[made.__name__] = made
    return made


def main(program, *arguments):
    v1.disable_v2_behavior()
    tf1_programs.original()
    fake = stand_in("contrib", ModuleType(""))
    for name, place in PLACES.items():
        module = stand_in(f"contrib.{name}", importlib.import_module(place))
        parent, _, last = module.__name__.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], last, module)
    importlib.import_module("tensorflow.python.keras.legacy_tf_layers.core")
    tensorflow = ModuleType("tensorflow")
    tensorflow.__path__, tensorflow.contrib = tf.__path__, fake
    tensorflow.__getattr__ = lambda name: getattr(v1, name)
    sys.modules["tensorflow"] = tensorflow
    sys.modules.update({f"tensorflow.{name}": getattr(v1, name) for name in MODULES})
    sys.argv = [program, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
