"""Loads a Python file that several config files share, from the folder that holds them."""

from __future__ import annotations

import types
from pathlib import Path

from prfl_jax.system.errors import UserError
from prfl_jax.system.source_file import compile_file


def load_beside(file: str, name: str) -> types.ModuleType:
    """The module in the file `name` beside a config file, wherever the config file is read from.

    Config files are run by their path and belong to no package, so `import` does not find their neighbours.

    Examples:
      In a config file: `base = load_beside(__file__, "base.py")`.

    Args:
      file: the config file, `__file__` in it; a symbolic link is followed.
      name: of the other file.

    Raises:
      UserError: there is no such file, or it cannot be read.
    """
    path = Path(file).resolve().parent / name
    try:
        source = path.read_bytes()
    except OSError as error:
        why = f"cannot be read ({error.strerror})"
        raise UserError(f"{file}: needs the file {path}, which {why}; keep the two in one folder") from None
    module = types.ModuleType(f"config_{path.stem}")
    module.__file__ = str(path)
    exec(compile_file(source, str(path)), module.__dict__)
    return module
