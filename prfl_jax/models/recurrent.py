"""LSTM and GRU layers that are fast on CPU: products outside the loop over the steps as far as they can be.

A step's product needs what the step before gave; all others do not. So the inputs of all steps are projected by one
product before the loop, and in the backward pass the gradient of the recurrent kernel is one product after it, from the
steps' gradients laid side by side. JAX's own gradient of a `scan` adds up one such product at each step.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.models.choices import INITS
from prfl_jax.models.products import dot_general

Arrays = tuple[jax.Array, ...]


class Cell(NamedTuple):
    """The elementwise part of a step.

    Attributes:
      gates: blocks of H columns in the projections.
      states: arrays `[B, H]` that are carried; the first is the output h.
      forward: (projected input `[B, gates H]`, projected h likewise, carried) -> (carried, saved for the way back).
      backward: (saved, carried before, gradients of what is carried after) -> (gradients of the two projections, or of
        both as one, gradients of what is carried before, without the way through the projected h).
    """

    gates: int
    states: int
    forward: Callable[[jax.Array, jax.Array, Arrays], tuple[Arrays, Arrays]]
    backward: Callable[[Arrays, Arrays, Arrays], tuple[Arrays, Arrays]]


def _lstm_forward(z: jax.Array, r: jax.Array, carried: Arrays) -> tuple[Arrays, Arrays]:
    """Gates in the order input, forget, cell, output (Hochreiter and Schmidhuber 1997; Gers et al. 2000)."""
    i, f, g, o = jnp.split(z + r, 4, axis=-1)
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * carried[1] + i * g
    t = jnp.tanh(c)
    return (o * t, c), (i, f, g, o, t)


def _lstm_backward(saved: Arrays, before: Arrays, gradients: Arrays) -> tuple[Arrays, Arrays]:
    (i, f, g, o, t), (_, c), (dh, dc) = saved, before, gradients
    dc = dc + dh * o * (1 - t * t)
    z = jnp.concatenate(
        [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], axis=-1
    )
    return (z,), (jnp.zeros_like(dh), dc * f)


def _gru_forward(z: jax.Array, r: jax.Array, carried: Arrays) -> tuple[Arrays, Arrays]:
    """Gates in the order reset, update, new; the reset is applied behind the product (Cho et al. 2014, as cuDNN)."""
    (h,), (zr, zu, zn), (rr, ru, rn) = carried, jnp.split(z, 3, axis=-1), jnp.split(r, 3, axis=-1)
    reset, update = nn.sigmoid(zr + rr), nn.sigmoid(zu + ru)
    new = jnp.tanh(zn + reset * rn)
    return ((1 - update) * new + update * h,), (reset, update, new, rn)


def _gru_backward(saved: Arrays, before: Arrays, gradients: Arrays) -> tuple[Arrays, Arrays]:
    (reset, update, new, rn), (h,), (dh,) = saved, before, gradients
    dn = dh * (1 - update) * (1 - new * new)
    du = dh * (h - new) * update * (1 - update)
    dr = dn * rn * reset * (1 - reset)
    return (jnp.concatenate([dr, du, dn], -1), jnp.concatenate([dr, du, dn * reset], -1)), (dh * update,)


LSTM_CELL = Cell(4, 2, _lstm_forward, _lstm_backward)
GRU_CELL = Cell(3, 1, _gru_forward, _gru_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recur(cell: Cell, projected: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Runs a cell over the steps, from zeros.

    Args:
      projected: `[T, B, gates H]`, what the inputs give to the gates.
      kernel: `[H, gates H]`, by which h is projected.
      bias: `[gates H]`, added to that; None: none is.

    Returns:
      h at every step, `[T, B, H]`.
    """
    return _forward(cell, projected, kernel, bias)[0]


def _forward(cell: Cell, projected: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> tuple[jax.Array, Any]:
    def step(carried: Arrays, z: jax.Array) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        r = carried[0] @ kernel
        carried, saved = cell.forward(z, r if bias is None else r + bias, carried)
        return carried, (carried, saved)

    start = (jnp.zeros((projected.shape[1], kernel.shape[0]), projected.dtype),) * cell.states
    _, (states, saved) = lax.scan(step, start, projected)
    return states[0], (kernel, bias, states, saved)


def _backward(cell: Cell, kept: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    kernel, bias, states, saved = kept
    before = tuple(jnp.concatenate([jnp.zeros_like(s[:1]), s[:-1]]) for s in states)
    transposed = lax.optimization_barrier(kernel.T)  # once; XLA would else do it in every turn

    def step(carried: Arrays, at: tuple[jax.Array, Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        output, saved, before = at
        each, carried = cell.backward(saved, before, (carried[0] + output, *carried[1:]))
        return (carried[0] + each[-1] @ transposed, *carried[1:]), each

    end = tuple(jnp.zeros_like(s[0]) for s in states)
    _, each = lax.scan(step, end, (gradient, saved, before), reverse=True)
    dz, dr = each[0], each[-1]
    h, rows = before[0].reshape(-1, kernel.shape[0]), dr.reshape(-1, kernel.shape[1])
    return dz, lax.optimization_barrier(h.T) @ rows, None if bias is None else rows.sum(0)


recur.defvjp(_forward, _backward)


def _gate_by_gate(init: Any, gates: int) -> Any:
    """An initialiser of `[n, gates H]` that draws the blocks of H columns one by one."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        keys = jax.random.split(key, gates)
        return jnp.concatenate([init(k, (shape[0], shape[1] // gates), dtype) for k in keys], axis=1)

    return draw


def _forgets_little(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """A bias `[4 H]` of 0, and 1 for the forget gate (Jozefowicz et al. 2015; TensorFlow's cell, which LEAF has)."""
    return jnp.repeat(jnp.array([0, 1, 0, 0], dtype), shape[0] // 4)


class Recurrent(nn.Module):
    """A recurrent layer over sequences `[T, B, F]`, steps first; gives `[T, B, units]`.

    Its leaves are `kernel` `[F, gates units]`, `recurrent_kernel` `[units, gates units]` and `bias` `[gates units]`.

    Attributes:
      units: H.
      init_name: of `model.init`; the release's bound is PyTorch's, 1 / sqrt(H).
    """

    units: int
    init_name: str = "release"

    cell = LSTM_CELL
    bias_init = staticmethod(_forgets_little)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Gives h at every step."""
        cell, choice, bound = self.cell, INITS.find(self.init_name), 1.0 / math.sqrt(self.units)
        wide = cell.gates * self.units
        kernel_init = _gate_by_gate(choice.kernel(bound), cell.gates)
        kernel = self.param("kernel", kernel_init, (x.shape[-1], wide))
        again = self.param("recurrent_kernel", _gate_by_gate(choice.recurrent(bound), cell.gates), (self.units, wide))
        bias = self.param("bias", self.bias_init, (wide,))
        rows = x.reshape(-1, x.shape[-1])
        projected = dot_general(rows, kernel, (((1,), (0,)), ((), ()))) + bias
        return recur(cell, projected.reshape(*x.shape[:2], wide), again, self.recurrent_bias())

    def recurrent_bias(self) -> jax.Array | None:
        """`[gates units]`, added to what h gives to the gates."""
        return None


class LSTM(Recurrent):
    """An LSTM layer with one bias; gates in the order input, forget, cell, output."""


class GRU(Recurrent):
    """A GRU layer; gates in the order reset, update, new. `recurrent_bias` `[units]` is the one inside the reset."""

    cell = GRU_CELL
    bias_init = staticmethod(nn.initializers.zeros)

    def recurrent_bias(self) -> jax.Array:
        """0 for reset and update, where it would be one with `bias`."""
        inner = self.param("recurrent_bias", nn.initializers.zeros, (self.units,))
        return jnp.concatenate([jnp.zeros(2 * self.units, inner.dtype), inner])


def last_step(h: jax.Array, lengths: jax.Array) -> jax.Array:
    """Of `[T, B, H]` the step before each sample's padding, `[B, H]`; of an empty sample the first."""
    return h[jnp.maximum(lengths, 1) - 1, jnp.arange(h.shape[1])]
