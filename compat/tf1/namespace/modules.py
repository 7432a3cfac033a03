"""Modules of TensorFlow 1 as modules of Python: imported by name, by attribute, with a star."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .. import symbols
from .lookup import absent, find, public_names


class TF1Module(ModuleType):
    """One module; its names are looked up when they are asked for."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, f"What stands for tensorflow.{path} of TensorFlow 1.")
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> Any:
        path = self.__dict__["_path"]
        if name == "__all__":
            return [*public_names(path), *self._modules_inside()]
        if name.startswith("__"):
            raise AttributeError(name)
        inside = f"{path}.{name}"
        # A name of the table is meant before a file of contrib's that is called the same.
        if symbols.location(path, name) is None and symbols.module_of(inside) is not None:
            return import_module(f"{self.__name__}.{name}")
        return find(path, name)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self.__all__])

    def _modules_inside(self) -> list[str]:
        parts = f"{self.__dict__['_path']}."
        inside = (path[len(parts) :] for path in symbols.MODULES if path.startswith(parts))
        return sorted(name for name in inside if "." not in name and name != "python")


class TF1Finder(MetaPathFinder, Loader):
    """Finds `NAME.contrib` and what is in it for one NAME, `tensorflow` or ours."""

    def __init__(self, name: str) -> None:
        self._prefix = f"{name}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{self._prefix}contrib"):
            return None
        inside = fullname.removeprefix(self._prefix)
        if symbols.module_of(inside) is not None:
            return ModuleSpec(fullname, self, is_package=True)
        if inside.split(".")[0] == "contrib":
            raise ModuleNotFoundError(absent(inside), name=fullname)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return TF1Module(spec.name, spec.name.removeprefix(self._prefix))

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


class CompatModule(ModuleType):
    """`tf.compat`, whose `v1` has what TensorFlow 2's no longer has, too."""

    def __getattr__(self, name: str) -> Any:
        if name == "v1":
            return import_module(symbols.HERE)
        return getattr(import_module(f"{symbols.V1}.compat"), name)
