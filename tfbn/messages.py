"""What other libraries' errors say, fit to be quoted in ours."""

import re

# Bold print and the list of all arguments (Keras' layers), a class's whole configuration (Keras'
# loading), and which kernel it was (TensorFlow).
NOISE = re.compile(
    r"\x1b\[\d*m|\{\{function_node [^}]*\}\} ?|\[Op:\w+\]"
    r"|Arguments received by .*|Full object config: .*",
    re.DOTALL,
)


def one_line(error: Exception) -> str:
    """The error's message in one line, or its class where it has none."""
    return " ".join(NOISE.sub("", str(error)).split()) or type(error).__name__
