"""Five ways to compute a convolution by plain matrix products, `[n, k] @ [k, m]`.

All take images `[B, H, W, C]` and a kernel `[kh, kw, C, O]`; those that need stride 1 say
so. They differ in what they copy and in how many products they need:

- `joined`: every patch in a row, one product. Copies each pixel kh kw times.
- `by_row`: one product a row of the kernel. Copies each pixel kw times.
- `by_tap`: one product a tap, over the pixels where the tap is inside the image: on 2x2 images a 3x3
  kernel has 16 such pixels instead of 36. Copies little.
- `filtered_3x3`, `filtered_5_rows`: Winograd's minimal filters, which give two neighbouring outputs of
  three taps with four multiplications instead of six, and of two taps with three instead of
  four (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for
  Convolutional Neural Networks, 2016, section 4). In both directions, 3x3 needs 16 instead of 36;
  five rows as three and two need 7 instead of 10. Their only factors are 1 and 1/2, so that rounding
  errors are those of the plain sum; the larger filters of the same family multiply them by ten and more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]
Times = Callable[[jax.Array, jax.Array], jax.Array]  # the product of `[n, k]` and `[k, m]`


def padded(images: jax.Array, padding: Padding, more: tuple[int, int] = (0, 0)) -> jax.Array:
    """Zeros around the images, negative numbers cut off; `more` below and to the right."""
    (top, bottom), (left, right) = padding
    bottom, right = bottom + more[0], right + more[1]
    if (top, bottom, left, right) == (0, 0, 0, 0):
        return images
    zero = jnp.zeros((), images.dtype)
    return lax.pad(images, zero, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))


def _every(images: jax.Array, axis: int, start: int, count: int, step: int = 1) -> jax.Array:
    return lax.slice_in_dim(images, start, start + (count - 1) * step + 1, step, axis)


def _beside(parts: Sequence[jax.Array]) -> jax.Array:
    """Joins arrays along the channels."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _sum(parts: Sequence[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, parts)


def _rows_of(kernel: jax.Array) -> list[jax.Array]:
    kh, kw, channels, features = kernel.shape
    rows = kernel.reshape(kh, kw * channels, features)
    return [rows[i] for i in range(kh)]


def joined(
    images: jax.Array, kernel: jax.Array, padding: Padding, out: tuple[int, int], times: Times,
    strides: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1),
) -> jax.Array:  # fmt: skip
    """One product of all patches."""
    (kh, kw, _, features), images = kernel.shape, padded(images, padding)
    wide = _beside([_every(images, 2, j * dilation[1], out[1], strides[1]) for j in range(kw)])
    patches = _beside([_every(wide, 1, i * dilation[0], out[0], strides[0]) for i in range(kh)])
    product = times(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, features))
    return product.reshape(len(images), *out, features)


def _wide_rows(
    images: jax.Array, padding: Padding, kw: int, width: int, stride: int = 1, dilation: int = 1,
    more: tuple[int, int] = (0, 0),
) -> jax.Array:  # fmt: skip
    """`[H, B, W', kw C]`: the rows that a row of the kernel reads are then contiguous and need no copy."""
    images = jnp.transpose(padded(images, padding, more), (1, 0, 2, 3))
    return _beside([_every(images, 2, j * dilation, width, stride) for j in range(kw)])


def by_row(
    images: jax.Array, kernel: jax.Array, padding: Padding, out: tuple[int, int], times: Times,
    strides: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1),
) -> jax.Array:  # fmt: skip
    """One product for each row of the kernel."""
    wide = _wide_rows(images, padding, kernel.shape[1], out[1], strides[1], dilation[1])
    seen = [_every(wide, 0, i * dilation[0], out[0], strides[0]) for i in range(kernel.shape[0])]
    products = [times(s.reshape(-1, s.shape[-1]), k) for s, k in zip(seen, _rows_of(kernel), strict=True)]
    return jnp.transpose(_sum(products).reshape(out[0], len(images), out[1], -1), (1, 0, 2, 3))


def tap_range(size: int, out: int, before: int, tap: int) -> tuple[int, int]:
    """The outputs `[first, last)` along one axis at which a tap meets the image; stride 1, `before` zeros."""
    first = max(0, before - tap)
    return first, max(first, min(out, size + before - tap))


def inside(size: tuple[int, int], out: tuple[int, int], kernel: tuple[int, int], padding: Padding) -> float:
    """Share of (tap, output) pairs that meet the image, stride 1."""
    share = 1.0
    for axis in range(2):
        ranges = [tap_range(size[axis], out[axis], padding[axis][0], tap) for tap in range(kernel[axis])]
        share *= sum(last - first for first, last in ranges) / (kernel[axis] * out[axis])
    return share


def by_tap(images: jax.Array, kernel: jax.Array, padding: Padding, out: tuple[int, int], times: Times) -> jax.Array:
    """One product for each tap, where it meets the image. Stride 1."""
    batch, height, width, channels = images.shape
    (top, _), (left, _) = padding
    total = jnp.zeros((batch, *out, kernel.shape[3]), images.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            (r0, r1), (c0, c1) = tap_range(height, out[0], top, i), tap_range(width, out[1], left, j)
            if r0 == r1 or c0 == c1:
                continue
            seen = images[:, r0 + i - top : r1 + i - top, c0 + j - left : c1 + j - left]
            product = times(seen.reshape(-1, channels), kernel[i, j]).reshape(batch, r1 - r0, c1 - c0, -1)
            total += padded(product, ((r0, out[0] - r1), (c0, out[1] - c1)))
    return total


# F(2, 3) and F(2, 2): what is multiplied of the inputs, what of the taps, and the two outputs.


def _inputs_3(d: Sequence[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _taps_3(g: Sequence[jax.Array]) -> list[jax.Array]:
    return [g[0], 0.5 * (g[0] + g[1] + g[2]), 0.5 * (g[0] - g[1] + g[2]), g[2]]


def _outputs_3(m: Sequence[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _inputs_2(d: Sequence[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[1], d[1], d[1] - d[2]]


def _taps_2(g: Sequence[jax.Array]) -> list[jax.Array]:
    return [g[0], g[0] + g[1], g[1]]


def _outputs_2(m: Sequence[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1], m[1] - m[2]]


def filtered_3x3(
    images: jax.Array, kernel: jax.Array, padding: Padding, out: tuple[int, int], times: Times
) -> jax.Array:
    """3x3 kernels, stride 1: F(2x2, 3x3), 16 products of a quarter of the outputs each."""
    batch, channels, features = len(images), kernel.shape[2], kernel.shape[3]
    tiles_h, tiles_w = (-(-size // 2) for size in out)
    images = padded(images, padding, (2 * tiles_h - out[0], 2 * tiles_w - out[1]))
    images = jnp.transpose(images, (1, 2, 0, 3))  # both axes of pixels first: every second one is cheap to take
    rows = _inputs_3([_every(images, 0, i, tiles_h, 2) for i in range(4)])
    kernels = _taps_3([kernel[i] for i in range(3)])
    halves = []
    for row, taps in zip(rows, kernels, strict=True):
        seen = _inputs_3([_every(row, 1, j, tiles_w, 2) for j in range(4)])
        each = _taps_3([taps[j] for j in range(3)])
        halves.append(_outputs_3([times(s.reshape(-1, channels), k) for s, k in zip(seen, each, strict=True)]))
    pixels = [_outputs_3([half[q] for half in halves]) for q in range(2)]  # [column in the tile][row in it]
    shape = (tiles_h, tiles_w, batch, features)
    lines = [jnp.stack([pixels[q][p].reshape(shape) for q in range(2)], 2) for p in range(2)]
    whole = jnp.stack([line.reshape(tiles_h, 2 * tiles_w, batch, features) for line in lines], 1)
    whole = whole.reshape(2 * tiles_h, 2 * tiles_w, batch, features)[: out[0], : out[1]]
    return jnp.transpose(whole, (2, 0, 1, 3))


def filtered_5_rows(
    images: jax.Array, kernel: jax.Array, padding: Padding, out: tuple[int, int], times: Times
) -> jax.Array:
    """Kernels of five rows, stride 1: F(2, 3) and F(2, 2) over the rows, seven products of half of the outputs."""
    batch, kw, features = len(images), kernel.shape[1], kernel.shape[3]
    tiles = -(-out[0] // 2)
    wide = _wide_rows(images, padding, kw, out[1], more=(2 * tiles - out[0], 0))
    d, g = [_every(wide, 0, i, tiles, 2) for i in range(6)], _rows_of(kernel)

    def products(seen: Sequence[jax.Array], taps: Sequence[jax.Array]) -> list[jax.Array]:
        return [times(s.reshape(-1, s.shape[-1]), k) for s, k in zip(seen, taps, strict=True)]

    three = _outputs_3(products(_inputs_3(d[:4]), _taps_3(g[:3])))
    two = _outputs_2(products(_inputs_2(d[3:]), _taps_2(g[3:])))
    rows = [(a + b).reshape(tiles, batch, out[1], features) for a, b in zip(three, two, strict=True)]
    whole = jnp.stack(rows, 1).reshape(2 * tiles, batch, out[1], features)[: out[0]]
    return jnp.transpose(whole, (1, 0, 2, 3))
