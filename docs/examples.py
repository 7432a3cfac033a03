"""What the reference makes of the examples in docstrings: sections of their own, laid out as code."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Griffe takes `>>>` for an example under the heading `Examples:` alone."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_section, obj.docstring.value)


def _section(example: re.Match[str]) -> str:
    return "Examples:\n" + "".join(f"    {line}\n" for line in example[0].splitlines())
