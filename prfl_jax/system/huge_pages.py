"""Asks glibc for memory in huge pages: arrays of many MB are then faster to allocate and to go through.

With pages of 4 KB the first touch of each costs more than the arithmetic of many kernels, and products of large
matrices miss the processor's table of pages. glibc asks for pages of 2 MB if a variable says so when the process
starts, so a script starts itself again with it. Linux does the rest where it may (`madvise`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

VARIABLE, SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_POLICY = "/sys/kernel/mm/transparent_hugepage/enabled"
_SINCE = (2, 35)  # the release of glibc with that setting


def environment_with(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment with the variable; None where it says something of huge pages already, or they cannot be had."""
    before = environment.get(VARIABLE, "")
    if SETTING in before or not (_glibc() and _on_request()):
        return None
    return {**environment, VARIABLE: ":".join(filter(None, (before, f"{SETTING}=1")))}


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the setting."""
    kept = [part for part in environment.get(VARIABLE, "").split(":") if part and not part.startswith(f"{SETTING}=")]
    others = {name: value for name, value in environment.items() if name != VARIABLE}
    return {**others, VARIABLE: ":".join(kept)} if kept else others


def start_again() -> None:
    """Starts this process again with the variable, unless it is set or of no use. For programs, at their first line.

    A program that is read from a pipe cannot be read again and goes on as it is, as where starting fails.
    """
    environment = environment_with(os.environ)
    if environment is None or not os.path.isfile(sys.argv[0]):
        return
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except (OSError, ValueError):  # no interpreter, or too much in the environment
        return


def _glibc() -> bool:
    """Whether this process runs on a glibc that has the setting."""
    try:
        name, _, release = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, release.split(".")[:2])) >= _SINCE
    except (AttributeError, OSError, ValueError):  # of other systems and libraries
        return False


def _on_request() -> bool:
    """Whether Linux gives huge pages to who asks, and to nobody else."""
    try:
        with open(_POLICY, encoding="ascii") as file:
            return "[madvise]" in file.read()
    except OSError:
        return False
