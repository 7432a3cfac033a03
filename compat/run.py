"""Run a program of TensorFlow 1 as it is: `python -m tfbn.compat.run old_program.py arguments`.

In its folder `import tensorflow` means `tfbn.compat.tf1`, contrib included, and TensorFlow behaves as
its first version.
"""

from __future__ import annotations

import os
import runpy
import sys
import warnings

from .tf1.namespace.enable import enable
from .tf1.namespace.install import install_contrib

USAGE = "Usage: python -m tfbn.compat.run PROGRAM.py [ARGUMENT …]"


def main(arguments: list[str]) -> int:
    """Run the program that the first argument names, with the others.

    Returns:
        1 where there is no such program, else 0; what the program raises, it raises.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{__doc__}", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 1
    program = arguments[0]
    if not os.path.isfile(program):
        print(f"{USAGE}\nThere is no file {program}.", file=sys.stderr)
        return 1
    folder = os.path.dirname(os.path.abspath(program))
    print(f"tfbn.compat.run: {enable()}", file=sys.stderr)
    # tf_slim calls layers in a way that TensorFlow tells programs to leave, which do not call them.
    warnings.filterwarnings("ignore", "`(layer.apply|tf.layers.[a-z0-9_]+)` is deprecated", UserWarning)
    sys.argv, sys.path[0] = arguments, folder
    with install_contrib(programs=folder):
        runpy.run_path(program, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
