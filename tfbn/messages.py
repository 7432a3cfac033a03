"""What other libraries' errors say, fit to be quoted in ours."""

import re

LONGEST = 240  # characters of a quotation

# Bold print and the list of all arguments (Keras' layers), a class's whole configuration (Keras'
# loading), and which kernel it was (TensorFlow).
NOISE = re.compile(
    r"\x1b\[\d*m|\{\{function_node [^}]*\}\} ?|\[Op:\w+\]"
    r"|Arguments received by .*|Full object config: .*",
    re.DOTALL,
)


def one_line(error: Exception) -> str:
    """The error's message in one line, cut where it is long; its class where it has none."""
    line = " ".join(NOISE.sub("", str(error)).split()) or type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rstrip()} …"
