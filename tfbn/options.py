"""Messages for Python in the words of the command: its options in place of arguments."""

from __future__ import annotations

import re

# Arguments of `export` and `upgrade`, and the one of `convert`, as messages name them.
ARGUMENT = re.compile(
    r"\b(samples|weights|keras_version|backend|data_format|custom_objects|fold|freeze|overwrite|format)="
    r"(?:'([^']*)'|\{[^}]*\}|(True|False)\b)?"
)
NAMES = re.compile(r"\b(inputs|outputs)=\['([^']*)'\]")
CONVERT = re.compile(r"tfbn\.convert\(model, (data_format='\w+')\)")


def as_options(message: str) -> str:
    """A message with the command's options in place of Python's arguments."""
    message = CONVERT.sub(r"\1", message).replace("input_names must", "--input-name must")
    message = NAMES.sub(r"--\1 \2", message)
    return ARGUMENT.sub(_option, message)


def _option(argument: re.Match[str]) -> str:
    name, value, flag = argument.groups()
    if flag or name == "freeze":
        return f"--{'no-' * (flag == 'False')}{name}"
    if name == "custom_objects":
        return f"{argument[0]} to compat.load_model, in Python"
    if name == "format" and not value:
        return "--format"
    return f"--{name.replace('_', '-')} {value or 'FILE'}"
