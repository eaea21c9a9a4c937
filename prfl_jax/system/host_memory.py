"""The memory that this machine has and this process takes, in bytes (no JAX)."""

from __future__ import annotations

import os


def host_available() -> int | None:
    """Bytes of memory that the host can give, swap not counted; None where the system does not report it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def resident() -> int | None:
    """Bytes of memory that this process takes now; None where the system does not report it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as line:
            return os.sysconf("SC_PAGE_SIZE") * int(line.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None
