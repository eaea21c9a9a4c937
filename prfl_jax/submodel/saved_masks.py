"""`masks.npz` of a run: the masks that server and clients have at its end, one bit a weight (NumPy only).

The array `@masks` holds the version of the file; `shape/PATH`, `server/PATH` and, where clients have masks of their
own, `clients/PATH` belong to the leaf at PATH. Bits lie as in `submodel/masks.py`: bit k of byte j is weight
`k * ceil(n/8) + j` of the n weights of a leaf.
"""

from __future__ import annotations

import dataclasses
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import replacing

_MARK, VERSION = "@masks", 1


@dataclasses.dataclass(frozen=True)
class SavedMasks:
    """Masks by the path of each leaf that can be pruned.

    Attributes:
      shapes: of the leaves.
      server: `[ceil(n/8)]` uint8, the server's mask, packed.
      clients: `[M, ceil(n/8)]` uint8, those of all clients; {} where they have none of their own.
    """

    shapes: Mapping[str, tuple[int, ...]]
    server: Mapping[str, np.ndarray]
    clients: Mapping[str, np.ndarray]

    def of_server(self) -> dict[str, np.ndarray]:
        """The server's mask as booleans, in the leaves' shapes."""
        return {path: _unpacked(bits, self.shapes[path]) for path, bits in self.server.items()}

    def of_client(self, client: int) -> dict[str, np.ndarray]:
        """A client's own masks as booleans, in the leaves' shapes; {} where it has none."""
        return {path: _unpacked(bits[client], self.shapes[path]) for path, bits in self.clients.items()}


def packed(mask: np.ndarray) -> np.ndarray:
    """A mask of any shape as bits `[ceil(n/8)]` uint8, as `masks.pack` lays them."""
    planes = np.zeros(8 * -(-mask.size // 8), bool)
    planes[: mask.size] = mask.reshape(-1)
    return np.packbits(planes.reshape(8, -1), axis=0, bitorder="little")[0]


def _unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    planes = np.unpackbits(bits[None], axis=0, bitorder="little")
    return planes.reshape(-1)[: math.prod(shape)].reshape(shape).astype(bool)


def save_masks(path: str | os.PathLike[str], masks: SavedMasks) -> None:
    """Writes a file that `load_masks` reads; atomic.

    Raises:
      UserError: it cannot be written.
    """
    arrays: dict[str, Any] = {_MARK: np.int64(VERSION)}
    for leaf, shape in masks.shapes.items():
        arrays[f"shape/{leaf}"] = np.array(shape, np.int64)
    for kind, found in (("server", masks.server), ("clients", masks.clients)):
        arrays |= {f"{kind}/{leaf}": bits for leaf, bits in found.items()}
    with replacing(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


def load_masks(path: str | os.PathLike[str]) -> SavedMasks:
    """Reads the `masks.npz` of a run.

    Raises:
      UserError: no such file, a damaged one, or another one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _checked({name: file[name] for name in file.files})
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        said = first_line(error)
        raise UserError(f"{path}: not the masks of a run ({said}); allowed: a masks.npz of a run") from error


def _checked(arrays: dict[str, np.ndarray]) -> SavedMasks:
    """The masks in these arrays; raises ValueError where they do not fit each other."""
    if _MARK not in arrays:
        raise ValueError(f"it has no array {_MARK!r}")
    if arrays.pop(_MARK).tolist() != VERSION:
        raise ValueError(f"{_MARK!r} is not {VERSION}")
    parts: dict[str, dict[str, np.ndarray]] = {"shape": {}, "server": {}, "clients": {}}
    for name, array in arrays.items():
        kind, _, leaf = name.partition("/")
        if kind not in parts:
            raise ValueError(f"unknown array {name!r}")
        parts[kind][leaf] = array
    shapes = {leaf: tuple(int(n) for n in shape.reshape(-1)) for leaf, shape in parts["shape"].items()}
    counts = {len(bits) for bits in parts["clients"].values() if bits.ndim == 2}
    clients = counts.pop() if counts else 0
    for kind, lead in (("server", ()), ("clients", (clients,))):
        found = parts[kind]
        if found.keys() != shapes.keys() and (found or kind == "server"):
            raise ValueError(f"the leaves of {kind!r} are not those of 'shape'")
        for leaf, bits in found.items():
            wanted = (*lead, -(-math.prod(shapes[leaf]) // 8))
            if bits.dtype != np.uint8 or bits.shape != wanted:
                raise ValueError(f"{kind}/{leaf} is {bits.dtype}{list(bits.shape)}, not uint8{list(wanted)}")
    return SavedMasks(shapes, parts["server"], parts["clients"])
