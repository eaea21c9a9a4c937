"""Sets up JAX's cache of compiled programs on disk, and repairs what a killed process left half written.

JAX writes a program (`KEY-cache`) and then when it was last used (`KEY-atime`). Of one without the other it makes an
error whenever it looks for room, and then keeps no program any more; a program that is cut short it neither reads nor
replaces. So both are dropped before JAX starts. Nothing here imports JAX.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from prfl_jax.system import console

_PROGRAM, _USED = "-cache", "-atime"
_INDEX = ".checked.json"  # program -> size, time of its last change (ns), CRC-32, of those that were whole
_LOCK, _LOCK_S = ".lockfile", 10.0  # JAX's own
_MOST_S = 3.0  # s of reading; what is left is looked at by the next process
_ROOM = 1 << 16  # bytes that must find room
_NOISE = "persistent compilation cache entry for"


def mend(folder: Path) -> list[str]:
    """Drops programs that are damaged, and what belongs to none; returns their names.

    A program is read where it has changed since it was last found whole.

    Raises:
      OSError: the folder, or something in it, cannot be used.
    """
    _try_to_write(folder)
    try:
        with filelock.FileLock(folder / _LOCK, timeout=_LOCK_S):
            return _mend(folder)
    except filelock.Timeout:
        raise TimeoutError(f"another process holds {_LOCK}") from None


def _try_to_write(folder: Path) -> None:
    probe = folder / f".{os.getpid()}.probe"
    try:
        probe.write_bytes(b"\0" * _ROOM)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _mend(folder: Path) -> list[str]:
    known, whole, dropped = _read_index(folder / _INDEX), {}, []
    names = {entry.name for entry in os.scandir(folder)}
    until = time.monotonic() + _MOST_S
    for name in sorted(names):
        key, program = name.removesuffix(_USED), name.endswith(_PROGRAM)
        path = folder / name
        if program:
            before = known.get(name)
            now = os.stat(path)
            state: list[int] = [now.st_size, now.st_mtime_ns]
            if name.removesuffix(_PROGRAM) + _USED not in names:
                dropped.append(name)
            elif before is not None and before[:2] == state:
                whole[name] = before
            elif time.monotonic() < until:
                content = path.read_bytes()
                state.append(zlib.crc32(content))
                if _is_whole(content) and (before is None or before[2] == state[2]):
                    whole[name] = state
                else:
                    dropped += [name, name.removesuffix(_PROGRAM) + _USED]
        elif name.endswith(_USED) and key + _PROGRAM not in names:
            dropped.append(name)
    for name in dropped:
        (folder / name).unlink(missing_ok=True)
    if whole != known:
        part = folder / f"{_INDEX}.{os.getpid()}"
        part.write_text(json.dumps(whole))
        os.replace(part, folder / _INDEX)
    return dropped


def _read_index(file: Path) -> dict[str, list[int]]:
    try:
        found = json.loads(file.read_bytes())
        return {name: [int(number) for number in values] for name, values in found.items() if len(values) == 3}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_whole(content: bytes) -> bool:
    """Whether it can be unpacked; an unknown format counts as whole, since JAX may know it."""
    unpack = _unpacker(content)
    if unpack is None:
        return True
    try:
        return len(unpack(content)) > 4  # seconds of compiling, then the program
    except Exception:  # of whichever library
        return False


def _unpacker(content: bytes) -> Callable[[bytes], bytes] | None:
    if not content.startswith(b"\x28\xb5\x2f\xfd"):
        return zlib.decompress
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14

        return zstd.decompress  # type: ignore[no-any-return, unused-ignore]
    except ImportError:
        pass
    try:
        import zstandard  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return lambda data: zstandard.ZstdDecompressor().decompress(data)  # type: ignore[no-any-return, unused-ignore]


def cannot_keep(folder: Path, why: object) -> str:
    """One line for programs that cannot be kept, with what to do."""
    return (
        f"{folder}: compiled programs cannot be kept there ({why}), so each process compiles anew; make it a folder "
        "that can be written to, with room, or remove it, or set JAX_COMPILATION_CACHE_DIR to another one"
    )


def tell_once(folder: Path) -> None:
    """Turns JAX's warnings of programs that cannot be read or written into one line per process."""
    before, told = warnings.showwarning, False

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal told
        text = str(message)
        if _NOISE not in text:
            before(message, *args, **kwargs)
        elif not told:
            told = True
            console.say(cannot_keep(folder, text.partition("': ")[2] or text))

    if not getattr(before, "tells_once", False):
        show.tells_once = True  # type: ignore[attr-defined]
        warnings.showwarning = show
