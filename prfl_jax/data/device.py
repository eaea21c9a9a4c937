"""Puts the training samples on the device and draws batches there by key.

A client's batch depends on `(key, client, how often it has trained)` alone: not on
how many clients there are, how long the longest index list is, whether clients run
under `lax.map` or `vmap`, or where a chunk ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.data.client_split import Split
from prfl_jax.data.dataset import Dataset
from prfl_jax.data.pixels import AUGMENTATIONS, NORMALIZATIONS
from prfl_jax.data.rows import Rows
from prfl_jax.tasks import IMAGES, kind_of

CROP_PADDING = 4  # pixels on each side
_AUGMENT_STREAM = 0x61756731  # folded in before the client's number; larger than any of those
_ROUNDS = 16  # of the shuffling network; below 12 a test tells its orders of few images from chance


class DeviceData(NamedTuple):
    """The clients' samples, once, and who holds which.

    Attributes:
        x: the samples that some client holds, `Rows` of images `[H, W, C]` uint8, numbers `[T, ...]` float32 or tokens
            `[T]` int32.
        y: `[N]` int32; of sequences also `[N, T]`.
        index: `[M, L]` int32 rows of `x`; after a client's last one the row repeats 0.
        size: `[M]` int32, how many entries of each row of `index` count.
        present: `[M, labels]` bool, which labels a client lacks (False) although others have them.
        malicious: `[M]` bool, which clients attack.
        background: `[C]` int32, from `find_background`; -1: none is known.
    """

    x: Rows
    y: jax.Array
    index: jax.Array  # type: ignore[assignment]  # hides tuple.index
    size: jax.Array
    present: Any = ()
    malicious: Any = ()
    background: Any = ()


def find_background(x: np.ndarray) -> np.ndarray:
    """The colour `[C]` int32 that more than half of the images' border pixels have in each channel; else -1.

    Args:
      x: `[N, H, W, C]` uint8; other samples have none, `[1]`.
    """
    if kind_of(x.dtype) is not IMAGES:
        return np.full(1, -1, np.int32)
    rows, columns = np.unique([0, x.shape[1] - 1]), np.unique([0, x.shape[2] - 1])
    border = np.concatenate([x[:, rows].reshape(-1, x.shape[-1]), x[:, 1:-1][:, :, columns].reshape(-1, x.shape[-1])])
    counts = np.stack([np.bincount(channel, minlength=256) for channel in border.T])
    common = counts.max(axis=1) > len(border) / 2
    return np.where(common.all(), counts.argmax(axis=1), -1).astype(np.int32)


def to_device(
    dataset: Dataset, split: Split, images: tuple[Rows, jax.Array] | None = None, malicious: Sequence[int] = ()
) -> DeviceData:
    """Copy what the clients hold to the default device; samples that no client holds stay on the host.

    `index` therefore counts in `DeviceData.x`, not in `Dataset.x_train`.

    Args:
      images: all samples and targets, where they are on the device already; taken as they are.
      malicious: numbers of the malicious clients.
    """
    sizes = np.array([len(c) for c in split.clients], np.int32)
    held = np.sort(np.concatenate(split.clients)) if images is None else np.arange(len(dataset.x_train))
    index = np.zeros((len(sizes), int(sizes.max(initial=1))), np.int32)
    for row, client in zip(index, split.clients, strict=True):
        row[: len(client)] = np.searchsorted(held, client)
    counts = np.stack([dataset.labels(rows) for rows in split.clients])
    x, y = images or on_device(dataset.x_train[held], dataset.y_train[held])
    return DeviceData(
        x,
        y,
        jnp.asarray(index),
        jnp.asarray(sizes),
        jnp.asarray((counts > 0) | (counts.sum(axis=0) == 0)),
        jnp.asarray(np.isin(np.arange(len(sizes)), malicious)),
        jnp.asarray(find_background(dataset.x_train)),
    )


def on_device(x: np.ndarray, y: np.ndarray) -> tuple[Rows, jax.Array]:
    """Samples and their targets on the default device."""
    return jax.tree.map(jnp.asarray, (Rows.of(x), y))


def _mix(word: jax.Array) -> jax.Array:
    """A bijection of 32-bit words in which every input bit moves every output bit.

    Shifts and factors are those of the last step of MurmurHash3 (Appleby, public domain).
    """
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def integer_sqrt(n: jax.Array) -> jax.Array:
    """The largest root whose square is at most `n` (uint32 below 2^31), on every device the same."""
    root = jnp.sqrt(n.astype(jnp.float32)).astype(jnp.uint32)  # off by one at most, however a device rounds
    root = root - (root * root > n)
    return root + ((root + 1) * (root + 1) <= n)


def _shuffled(key: jax.Array, position: jax.Array, n: jax.Array) -> jax.Array:
    """Entries at `position` (`[B]` uint32, below `n`) of a keyed permutation of `0 .. n-1`.

    A Feistel network over a grid of a x b >= n cells, walked until it falls below n:
    the generalised network and the cycle walk of Black and Rogaway, "Ciphers with
    arbitrary finite domains" (2002). It costs B evaluations instead of a sort of all
    of the client's images, and cannot depend on how far the index list is padded.
    """
    words = jax.random.bits(key, (_ROUNDS,), jnp.uint32)
    a = integer_sqrt(n) + 1
    b = (n + a - 1) // a

    def two_rounds(r: Any, cell: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = cell  # below a, below b
        low = (low + _mix(high ^ words[2 * r]) % a) % a
        return low, (high + _mix(low ^ words[2 * r + 1]) % b) % b

    def walk(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        cell, outside = state
        low, high = jax.lax.fori_loop(0, _ROUNDS // 2, two_rounds, (cell % a, cell // a))
        cell = jnp.where(outside, low + a * high, cell)
        return cell, cell >= n

    start = (position, jnp.ones_like(position, bool))
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), walk, start)[0]


def batch_indices(data: DeviceData, key: jax.Array, client: Any, count: Any, steps: int, batch_size: int) -> jax.Array:
    """Rows of `data.x` for the `count`-th local round of a client.

    A client goes through its images in epochs of `n // batch_size` batches without
    repeating one; the remainder is not used in that epoch. Each epoch has an order of its
    own. Local round `count` takes the steps `count * steps ..` of that endless sequence.

    Args:
        data: from `to_device`.
        key: for the order of data, the same all through the experiment.
        client: its number, a whole number or a traced scalar.
        count: local rounds it has done so far, likewise.
        steps: local steps per round.
        batch_size: samples per step; each client holds at least so many (`split` sees
            to that; one with fewer would repeat images within a batch).

    Returns:
        `[steps, batch_size]` int32.
    """
    client = jnp.asarray(client, jnp.int32)
    n = jnp.maximum(data.size[client], 1).astype(jnp.uint32)
    per_epoch = jnp.maximum(n // batch_size, 1).astype(jnp.int32)
    step = jnp.asarray(count, jnp.int32) * steps + jnp.arange(steps, dtype=jnp.int32)
    own_key = jax.random.fold_in(key, client)

    def one(s: jax.Array) -> jax.Array:
        place = (s % per_epoch) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
        return _shuffled(jax.random.fold_in(own_key, s // per_epoch), place.astype(jnp.uint32) % n, n)

    return data.index[client, jax.vmap(one)(step).astype(jnp.int32)]


def preprocess(x: jax.Array, normalize: str) -> jax.Array:
    """Samples as a model is given them, of the same shape.

    Pixels `[..., H, W, C]` uint8 become float32 by a choice of `data.normalize` (`pixels.py`); numbers and tokens are
    given as they are.

    Raises:
      ValueError: the images have another number of channels than the choice takes.
    """
    if x.dtype != jnp.uint8:
        return x
    choice = NORMALIZATIONS.find(normalize)
    if not choice.takes(x.shape[-1]):
        raise ValueError(f"normalize={normalize} wants {choice.channels} channels, the images have {x.shape[-1]}")
    return choice.apply(x.astype(jnp.float32) / 255)


def outside(background: Any, normalize: str) -> jax.Array:
    """The pixel `[C]` (or `[]`) uint8 around an image.

    The data's background; where they have none (photographs), the byte that the choice of `data.normalize` names.

    Args:
      background: of `DeviceData`.
    """
    known = jnp.asarray(-1 if isinstance(background, tuple) else background)
    return jnp.where(known < 0, NORMALIZATIONS.find(normalize).around, known).astype(jnp.uint8)


def augment(key: jax.Array, x: jax.Array, kind: str, around: Any = 0) -> jax.Array:
    """Changes a batch `[B, H, W, C]` uint8 at random by a choice of `data.augment`; the shape stays.

    Args:
      around: the pixel around the images, `[C]` or `[]` uint8; see `outside`.
    """
    change = AUGMENTATIONS.find(kind)
    return x if change is None else change(key, x, around)


def crop_flip(key: jax.Array, x: jax.Array, around: Any) -> jax.Array:
    """Shifts each image by -4 .. 4 pixels both ways and mirrors it left to right half of the time.

    Args:
      x: `[B, H, W, C]` uint8.
      around: what comes in from outside, so that the result is a crop of H x W out of the image with four pixels of
        padding; `[C]` or `[]` uint8.
    """
    count, height, width, channels = x.shape
    # One draw of plain words compiles in a fraction of randint's and bernoulli's time; the
    # remainder's bias is below 1e-8.
    words = jax.random.bits(key, (3, count), jnp.uint32)
    top, left = (words[:2] % (2 * CROP_PADDING + 1)).astype(jnp.int32)
    flip = words[2] % 2 == 1
    frame = jnp.broadcast_to(
        jnp.asarray(around, x.dtype), (count, height + 2 * CROP_PADDING, width + 2 * CROP_PADDING, channels)
    )
    padded = frame.at[:, CROP_PADDING:-CROP_PADDING, CROP_PADDING:-CROP_PADDING].set(x)
    rows = top[:, None] + jnp.arange(height)
    columns = left[:, None] + jnp.where(flip[:, None], jnp.arange(width)[::-1], jnp.arange(width))
    return padded[jnp.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def draw_batches(
    data: DeviceData,
    key: jax.Array,
    client: Any,
    count: Any,
    steps: int,
    batch_size: int,
    normalize: str,
    augment: str,
) -> tuple[jax.Array, jax.Array]:
    """The batches of one local round, ready for the model.

    The arguments are those of `batch_indices`, `preprocess` and `augment`. What an
    image becomes depends on `(key, client, step, place in the batch)`.

    Returns:
        x: `[steps, batch_size, ...]` float32, or int32 of tokens.
        y: `[steps, batch_size]` int32, or `[steps, batch_size, T]` of sequences.
    """
    rows = batch_indices(data, key, client, count, steps, batch_size)
    x = data.x[rows]
    change = AUGMENTATIONS.find(augment)
    if change is not None:
        own_key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENT_STREAM), client)
        step = jnp.asarray(count, jnp.int32) * steps + jnp.arange(steps, dtype=jnp.int32)
        around = outside(data.background, normalize)  # of bytes: an image is changed before it is normalised
        x = jax.vmap(lambda s, images: change(jax.random.fold_in(own_key, s), images, around))(step, x)
    return preprocess(x, normalize), data.y[rows]
