"""Convolution as slices, concatenation and matrix products.

On CPU, `lax.conv` inside a loop (`scan`, `map`, `while`) is 10 or more times slower
than this, and a per-client kernel under `vmap` becomes a grouped convolution, which
is slower still. Flax's `Conv` takes the function as `conv_general_dilated=`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.models.products import dot_general

# From these on, a row of the kernel is worth a product of its own: rows, and kw x channels. Three rows lose 2.6 %
# (VGG-11), five gain 3 % (Conv2).
ROWS, ROW_SIZE = 5, 64

def matmul_conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **others: Any,
) -> jax.Array:
    """Drop-in for `jax.lax.conv_general_dilated`.

    Two-dimensional NHWC x HWIO convolutions with any stride, padding and kernel
    dilation become matrix products: one for each row of the kernel, which leaves out
    the largest copies, or a single one where a row is small and on accelerators.
    Everything else (groups, transposed convolutions, other layouts or ranks) goes to
    `lax.conv_general_dilated` unchanged.

    Args:
      lhs: images `[B, H, W, C]`.
      rhs: kernel `[kh, kw, C, O]`.

    Returns:
      `[B, H', W', O]`.
    """
    plain = (
        lhs.ndim == 4
        and len(window_strides) == 2
        and feature_group_count == 1
        and batch_group_count == 1
        and all(value is None for value in others.values())  # such as out_sharding
        and (lhs_dilation is None or all(d == 1 for d in lhs_dilation))
        and _is_nhwc_hwio(lhs.shape, rhs.shape, dimension_numbers)
        and lhs.shape[3] == rhs.shape[2]  # if not, lax says what is wrong
    )

    def general() -> jax.Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            batch_group_count=batch_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
            **others,
        )

    if not plain:
        return general()
    kh, kw, channels, features = rhs.shape
    sh, sw = window_strides
    dh, dw = rhs_dilation or (1, 1)
    span = ((kh - 1) * dh + 1, (kw - 1) * dw + 1)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], span, (sh, sw), padding)
    (top, bottom), (left, right) = padding
    batch, height, width = lhs.shape[0], lhs.shape[1] + top + bottom, lhs.shape[2] + left + right
    out_h, out_w = (height - span[0]) // sh + 1, (width - span[1]) // sw + 1
    if out_h < 1 or out_w < 1:
        return general()
    if (top, bottom, left, right) != (0, 0, 0, 0):
        # lax.pad also takes negative padding, as lax.conv does
        zero = jnp.zeros((), lhs.dtype)
        lhs = lax.pad(lhs, zero, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)))
    def taken(axis: int, start: int, step: int, count: int, images: jax.Array) -> jax.Array:
        return lax.slice_in_dim(images, start, start + (count - 1) * step + 1, step, axis)

    def times(columns: jax.Array, kernel: jax.Array) -> jax.Array:
        return dot_general(
            columns.reshape(batch * out_h * out_w, -1),
            kernel.reshape(-1, features),
            (((1,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=preferred_element_type,
        )

    by_row = kh >= ROWS and kw * channels >= ROW_SIZE and preferred_element_type is None
    by_row = by_row and jax.default_backend() == "cpu"
    if by_row:
        # Rows first: those that a row of the kernel sees then lie together, and need no copy.
        lhs = jnp.transpose(lhs, (1, 0, 2, 3))
    rows = 0 if by_row else 1
    wide = _joined([taken(2, j * dw, sw, out_w, lhs) for j in range(kw)])
    seen = [taken(rows, i * dh, sh, out_h, wide) for i in range(kh)]
    if not by_row:
        return times(_joined(seen), rhs).reshape(batch, out_h, out_w, features)
    out = functools.reduce(jnp.add, [times(part, rhs[i]) for i, part in enumerate(seen)])
    return jnp.transpose(out.reshape(out_h, batch, out_w, features), (1, 0, 2, 3))


def _joined(parts: Sequence[jax.Array]) -> jax.Array:
    """Along the channels."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _is_nhwc_hwio(lhs_shape: tuple[int, ...], rhs_shape: tuple[int, ...], dimension_numbers: Any) -> bool:
    """Whether the layout is images NHWC, kernel HWIO, output NHWC (lax's own default is NCHW)."""
    numbers = lax.conv_dimension_numbers(lhs_shape, rhs_shape, dimension_numbers)
    return numbers.lhs_spec == (0, 3, 1, 2) == numbers.out_spec and numbers.rhs_spec == (3, 2, 0, 1)


def with_matmul_conv(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `function` with every linen `Conv` that chose no convolution of its own using `matmul_conv`.

    This is how a user's own module gets it without knowing of it. flax.nnx modules
    are converted by `build.py` instead.
    """

    def interceptor(next_fun: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, nn.Conv) or module.conv_general_dilated is not None:
            return next_fun(*args, **kwargs)
        # linen modules are frozen; the field is put back as it was at once
        object.__setattr__(module, "conv_general_dilated", matmul_conv)
        try:
            return next_fun(*args, **kwargs)
        finally:
            object.__setattr__(module, "conv_general_dilated", None)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(interceptor):
            return function(*args, **kwargs)

    return wrapped
