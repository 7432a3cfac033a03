"""What the reference makes of docstrings: examples as code, the arguments of calls as a list."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
CALL_ARGUMENTS = re.compile(r"^Call arguments:\n((?: {4}.*\n)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Griffe takes `>>>` for an example under the heading `Examples:` alone."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = CALL_ARGUMENTS.sub(_list, obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(_section, text)


def _list(arguments: re.Match[str]) -> str:
    items = re.sub(r"^ {4}(\w+):", r"- **`\1`**:", arguments[1], flags=re.MULTILINE)
    return f"**Call arguments:**\n\n{items}"


def _section(example: re.Match[str]) -> str:
    return "Examples:\n" + "".join(f"    {line}\n" for line in example[0].splitlines())
