"""Loads the public names of a package when they are first used, so that importing the package imports no JAX."""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # as `typing` has it, which is not imported here: scripts import this before anything else
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package; a name that was loaded is kept there.

    Args:
      package: its `__name__`.
      homes: by name, the module within the package that has it.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
