"""Counts the FLOP of one product (matmul, convolution, FFT) of a traced program from its shapes (NumPy only).

A multiplication and an addition are two FLOP.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def product_flop(name: str, operands: list[Any], out: Any, params: dict[str, Any]) -> float | None:
    """FLOP of one equation of a traced program.

    Args:
      name: of the primitive.
      operands: what it takes, with `shape` and `dtype`.
      out: what it gives, likewise.
      params: of the equation.

    Returns:
      None: not a product.
    """
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        flop = 2.0 * math.prod(out.shape) * math.prod(operands[0].shape[axis] for axis in contracted)
    elif name == "conv_general_dilated":
        flop = _convolution(operands[0].shape, operands[1].shape, out.shape, params)
    elif name == "ragged_dot_general" and (numbers := params["ragged_dot_dimension_numbers"]).rhs_group_dimensions:
        (contracted, _), _ = numbers.dot_dimension_numbers  # each row meets the matrix of its own group alone
        flop = 2.0 * math.prod(out.shape) * math.prod(operands[0].shape[axis] for axis in contracted)
    elif name == "fft":
        return _fourier(operands[0], out, params["fft_lengths"])
    else:
        return None
    # a product of complex numbers is four of real ones
    return flop * (4.0 if np.issubdtype(out.dtype, np.complexfloating) else 1.0)


def _convolution(
    images: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...], params: dict[str, Any]
) -> float:
    """FLOP of a convolution: of every output with every tap that `taps_met` counts."""
    numbers = params["dimension_numbers"]
    (_, inputs, *taps), (batch, features, *places) = numbers.rhs_spec, numbers.out_spec
    meetings = 1.0
    for axis, (tap, place, image) in enumerate(zip(taps, places, numbers.lhs_spec[2:], strict=True)):
        meetings *= taps_met(
            images[image], kernel[tap], out[place], params["window_strides"][axis], params["padding"][axis][0],
            params["lhs_dilation"][axis], params["rhs_dilation"][axis],
        )  # fmt: skip
    # the kernel's inputs are those of one group
    return 2.0 * out[batch] * out[features] * kernel[inputs] * meetings


def taps_met(size: int, taps: int, places: int, stride: int, before: int, spread: int, dilation: int) -> int:
    """(tap, output) pairs along one axis that are multiplied.

    Zeros around the image count as pixels: a SAME convolution has as many products at the border as elsewhere. In a
    transposed convolution, with `spread - 1` zeros between the pixels, only taps on pixels count.

    Args:
      size: pixels.
      taps, places: of the kernel, of the output.
      before: zeros in front of the first pixel.
      spread, dilation: steps from pixel to pixel and from tap to tap.
    """
    if spread == 1:
        return taps * places
    at = np.arange(places)[:, None] * stride + np.arange(taps)[None, :] * dilation - before
    return int(((at % spread == 0) & (at >= 0) & (at < size * spread)).sum())


def _fourier(values: Any, out: Any, lengths: tuple[int, ...]) -> float:
    """FLOP of an FFT, by convention 5 N log2 N, half of it if one side is real."""
    real = not (np.issubdtype(values.dtype, np.complexfloating) and np.issubdtype(out.dtype, np.complexfloating))
    points = math.prod(lengths)
    transforms = math.prod(values.shape[: len(values.shape) - len(lengths)])
    return (2.5 if real else 5.0) * transforms * points * math.log2(max(points, 1))
