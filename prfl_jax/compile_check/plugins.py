"""The packages with the compilers for accelerators: in a folder of their own, of the version that belongs to JAX's.

They are not installed beside JAX, where each of them would be started with every program. A process that compiles
for a target is started anew with that folder on its path.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prfl_jax.compile_check.targets import Machine
from prfl_jax.startup import deterministic_operations
from prfl_jax.system import console
from prfl_jax.system.errors import UserError, first_line

DEFAULT = "~/.cache/prfl_jax/compilers"
_STARTED = "PRFL_JAX_COMPILER"  # the folder with which this process was started


def wanted(machine: Machine) -> tuple[str, ...]:
    """The requirements that this version of JAX has for the target, without CUDA's libraries.

    Raises:
      UserError: it has none.
    """
    found: dict[str, list[str]] = {extra: [] for extra in machine.extras}
    for line in importlib.metadata.requires("jax") or ():
        requirement, _, condition = line.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)""", condition)
        if extra and extra[1] in found and not requirement.startswith(("jaxlib", "requests")):
            found[extra[1]].append(requirement.strip())
    for requirements in found.values():
        if requirements:
            return tuple(requirements)
    raise UserError(
        f"jax {importlib.metadata.version('jax')} names no compiler for this --target; allowed: a version with the "
        f"extra {' or '.join(machine.extras)}"
    )


def folder_of(machine: Machine, under: Path) -> Path:
    """The folder of a target's compiler for this version of JAX."""
    return under / f"{machine.extras[0]}-jax{importlib.metadata.version('jax')}"


def installed(machine: Machine, under: Path) -> bool:
    """Whether the compiler is there."""
    return (folder_of(machine, under) / "complete").exists()


def install(machine: Machine, under: Path) -> Path:
    """Returns the compiler's folder; downloads it where it is missing (some 200 MB).

    Raises:
      UserError: it cannot be installed.
    """
    folder, requirements = folder_of(machine, under), wanted(machine)
    if installed(machine, under):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    console.say(f"installing {', '.join(requirements)} in {folder}")
    # a plugin for GPUs loads a library of its own version; what they require besides, JAX has or only running needs
    packages = dict.fromkeys([*requirements, *(one.replace("-plugin", "-pjrt", 1) for one in requirements)])
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *packages]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no error message"]
        raise UserError(f"{', '.join(requirements)} cannot be installed in {folder}: {said[0]}")
    (folder / "complete").write_text("\n".join(requirements) + "\n")
    return folder


def devices(machine: Machine, count: int) -> tuple[Any, ...]:
    """JAX's descriptions of `count` devices; nothing is said of drivers that are not there.

    Raises:
      UserError: JAX does not find the compiler's package.
    """
    console.flush()
    with tempfile.TemporaryFile() as aside:
        kept = os.dup(2)
        os.dup2(aside.fileno(), 2)  # the plugins write there themselves
        try:
            from prfl_jax.system import accelerator

            accelerator.devices()  # JAX loads its plugins
            return machine.of(count)
        except RuntimeError as error:
            raise UserError(
                f"--compilers: JAX does not take the compiler in {os.environ.get(_STARTED)} "
                f"({first_line(error)}); allowed is a folder on PYTHONPATH, which this script sets unless Python is "
                "told to ignore it (-E, -I)"
            ) from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_again(machine: Machine, folder: Path, deterministic: bool = False) -> None:
    """Starts this process anew with the compiler on its path; returns if it was started so.

    Args:
      deterministic: as `engine.deterministic` of a run.
    """
    if os.environ.get(_STARTED) == str(folder):
        return
    path = os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, **machine.environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    environment[_STARTED] = str(folder)
    if deterministic:
        deterministic_operations(environment)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
