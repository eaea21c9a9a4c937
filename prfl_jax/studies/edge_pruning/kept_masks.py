"""What is kept of a run's `masks.npz` beside its report, so that masks can be drawn: pictures, shares, similarities.

Whole masks are too large to keep: those of five clients and the server are a megabyte for Conv2 of half width. Kept is
`METHOD_seed0.masks.npz`, some 40 kB: of the server and of the first clients a picture of each layer and the
share of it that they hold, and how similar the masks of the first clients are, over all weights.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prfl_jax.report.names import MASKS_FILE
from prfl_jax.submodel.saved_masks import load_masks
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import replacing

CLIENTS = 5  # of so many there are pictures
COMPARED = 10  # so many are compared with each other
EDGE = 160  # rows and columns of a dense layer that its picture has at most, evenly spaced
_SIMILARITY, _PICTURE, _SHARE = "similarity", "picture/", "share/"


@dataclasses.dataclass(frozen=True)
class KeptMasks:
    """Masks as they are drawn; of clients nothing where they have none of their own.

    Attributes:
      pictures: by layer, bool `[1 + clients, rows, columns]`, the server's first (see `picture`).
      shares: by layer, `[1 + clients]`, the share of the layer's weights that each holds.
      similarity: `[n, n]`, weights that two clients keep over weights that one of them keeps; `[0, 0]` without any.
    """

    pictures: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    similarity: np.ndarray


def picture(mask: np.ndarray) -> np.ndarray:
    """A mask in two dimensions: a convolution `[h, w, in, out]` as in x out tiles of h x w, a dense layer as it is.

    Of a dense layer with more than `EDGE` rows or columns the picture has so many of them, evenly spaced.
    """
    if mask.ndim == 4:
        h, w, inputs, outputs = mask.shape
        return mask.transpose(2, 0, 3, 1).reshape(inputs * h, outputs * w)
    rows, columns = (np.linspace(0, n - 1, min(n, EDGE)).round().astype(int) for n in mask.shape)
    return mask[np.ix_(rows, columns)]


def keep_masks(seed: int, folder: Path, report: Path) -> None:
    """Keeps masks beside a report: of the first seed, where the run's folder has any.

    Args:
      folder: of the run, which is over.
      report: its report's file, which need not be there yet.
    """
    from prfl_jax.submodel.votes import similarity

    if seed != 0 or not (folder / MASKS_FILE).exists():
        return
    saved = load_masks(folder / MASKS_FILE)
    clients = min((len(bits) for bits in saved.clients.values()), default=0)
    masks = [saved.of_server(), *(saved.of_client(client) for client in range(min(clients, CLIENTS)))]
    alike = similarity(tuple(bits[:COMPARED] for bits in saved.clients.values())) if clients else np.zeros((0, 0))
    arrays: dict[str, np.ndarray] = {_SIMILARITY: alike.astype(np.float32)}
    for layer in saved.shapes:
        own = [mask[layer] for mask in masks]
        arrays[_PICTURE + layer] = np.stack([picture(mask) for mask in own]).astype(np.uint8)
        arrays[_SHARE + layer] = np.array([mask.mean() for mask in own], np.float32)
    file = masks_file(report)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as part, open(part, "wb") as written:
        np.savez_compressed(written, **arrays)  # type: ignore[arg-type]


def masks_file(report: Path) -> Path:
    """The file beside a report."""
    return report.with_suffix(".masks.npz")


def kept_masks(path: str | os.PathLike[str]) -> KeptMasks:
    """Reads what `keep_masks` wrote.

    Raises:
      UserError: no such file, or another one.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        pictures = {name.removeprefix(_PICTURE): a.astype(bool) for name, a in arrays.items() if _PICTURE in name}
        shares = {layer: arrays[_SHARE + layer] for layer in pictures}
        return KeptMasks(pictures, shares, arrays[_SIMILARITY])
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not the kept masks of a run ({first_line(error)}); delete its report") from error
