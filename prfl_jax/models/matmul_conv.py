"""Computes convolutions as slices and matrix products (`conv_forms`) instead of `lax.conv`.

On CPU, `lax.conv` inside a loop (`scan`, `map`, `while`) is 10 or more times slower
than this, and a per-client kernel under `vmap` becomes a grouped convolution, which
is slower still. Flax's `Conv` takes the function as `conv_general_dilated=`.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import lax

from prfl_jax.models import conv_forms
from prfl_jax.models.products import dot_general
from prfl_jax.system import accelerator

# From these on, a row of the kernel is worth a product of its own: rows, and kw x channels. Three rows lose 2.6 %
# (VGG-11), five gain 3 % (Conv2).
ROWS, ROW_SIZE = 5, 64
# From so many channels on, products of single taps are worth it; all of them, where no more than this share of taps is
# inside the image.
CHANNELS, INSIDE = 32, 0.7

# Arguments of `lax.conv_general_dilated` after the padding, in their order; those that matrix products follow.
_OPTIONS = tuple(inspect.signature(lax.conv_general_dilated).parameters)[4:]
_UNDERSTOOD = ("rhs_dilation", "precision", "preferred_element_type")

_plain = contextvars.ContextVar("plain convolutions", default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within this context, traced programs contain only `lax` convolutions, whose products can be counted."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def convolution() -> Callable[..., jax.Array]:
    """The convolution function for a module traced now: `matmul_conv`, or that of `lax` within `plain_convolutions`."""
    return lax.conv_general_dilated if _plain.get() else matmul_conv


def matmul_conv(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *more: Any,
    **options: Any,
) -> jax.Array:
    """Drop-in for `jax.lax.conv_general_dilated`.

    Two-dimensional NHWC x HWIO convolutions with any stride, padding and kernel
    dilation become matrix products: a single one on accelerators, and on CPU whichever
    of `conv_forms` is fastest for the shapes.
    Everything else (groups, transposed convolutions, other layouts or ranks) goes to
    `lax.conv_general_dilated` unchanged.

    Args:
      lhs: images `[B, H, W, C]`.
      rhs: kernel `[kh, kw, C, O]`.
      window_strides, padding, more, options: those of `jax.lax.conv_general_dilated`, by place or by name.

    Returns:
      `[B, H', W', O]`.
    """
    options |= zip(_OPTIONS, more, strict=False)
    rhs_dilation, precision, preferred_element_type = (options.get(name) for name in _UNDERSTOOD)
    plain = (
        lhs.ndim == 4
        and len(window_strides) == 2
        and all(_is_default(name, value) for name, value in options.items())  # such as out_sharding
        and _is_nhwc_hwio(lhs.shape, rhs.shape, options.get("dimension_numbers"))
        and lhs.shape[3] == rhs.shape[2]  # if not, lax says what is wrong
    )

    def general() -> jax.Array:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)

    if not plain or _plain.get():
        return general()
    (sh, sw), (dh, dw) = window_strides, rhs_dilation or (1, 1)
    strides, dilation = (sh, sw), (dh, dw)
    span = tuple((size - 1) * d + 1 for size, d in zip(rhs.shape[:2], dilation, strict=True))
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], span, strides, padding)
    pads: Any = tuple((int(before), int(after)) for before, after in padding)
    size = (lhs.shape[1], lhs.shape[2])
    out = tuple((n + sum(p) - s) // step + 1 for n, p, s, step in zip(size, pads, span, strides, strict=True))
    if min(out) < 1:
        return general()

    def times(a: jax.Array, w: jax.Array) -> jax.Array:
        return dot_general(
            a, w, (((1,), (0,)), ((), ())), precision=precision, preferred_element_type=preferred_element_type
        )

    if not accelerator.on_cpu() or preferred_element_type is not None:
        return conv_forms.joined(lhs, rhs, pads, out, times, strides, dilation)
    if strides == dilation == (1, 1) and (form := _fewer_multiplications(lhs.shape, rhs.shape, pads, out)):
        return form(lhs, rhs, pads, out, times)
    rows, row_size = rhs.shape[0], rhs.shape[1] * rhs.shape[2]
    form = conv_forms.by_row if rows >= ROWS and row_size >= ROW_SIZE else conv_forms.joined
    return form(lhs, rhs, pads, out, times, strides, dilation)


def _fewer_multiplications(
    images: tuple[int, ...], kernel: tuple[int, ...], padding: conv_forms.Padding, out: tuple[int, int]
) -> Callable[..., jax.Array] | None:
    """The form that saves multiplications in a convolution of these shapes, if one is worth it. Stride 1."""
    kh, kw, channels, _ = kernel
    if channels >= CHANNELS and conv_forms.inside((images[1], images[2]), out, (kh, kw), padding) <= INSIDE:
        return conv_forms.by_tap
    if channels >= CHANNELS and (kh, kw) == (3, 3):
        return conv_forms.filtered_3x3
    if kh == 5 and kw * channels >= ROW_SIZE:
        return conv_forms.filtered_5_rows
    return None


def _is_default(name: str, value: Any) -> bool:
    """Whether an option of `lax.conv_general_dilated` asks for nothing that a plain convolution is not."""
    if name in (*_UNDERSTOOD, "dimension_numbers"):
        return True
    if name == "lhs_dilation":
        return value is None or all(d == 1 for d in value)
    return value is None or (name in ("feature_group_count", "batch_group_count") and value == 1)


def _is_nhwc_hwio(lhs_shape: tuple[int, ...], rhs_shape: tuple[int, ...], dimension_numbers: Any) -> bool:
    """Whether the layout is images NHWC, kernel HWIO, output NHWC (lax's own default is NCHW)."""
    numbers = lax.conv_dimension_numbers(lhs_shape, rhs_shape, dimension_numbers)
    return numbers.lhs_spec == (0, 3, 1, 2) == numbers.out_spec and numbers.rhs_spec == (3, 2, 0, 1)


def with_matmul_conv(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `function` with every linen `Conv` that chose no convolution of its own using `matmul_conv`.

    So a user's module gets it without a change. flax.nnx modules are converted by
    `nnx_adapter.py` instead.
    """

    def interceptor(next_fun: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if _plain.get() or not isinstance(module, nn.Conv) or module.conv_general_dilated is not None:
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
