"""The matrix product of dense layers, with gradients that are fast on CPU; names of product precisions.

The gradients of `a @ w` contract the first axes of two matrices (`a^T g`) or the last
ones (`g w^T`). XLA's CPU kernels are slower there than at a plain product, up to half
as fast, and XLA turns a transpose in front of a product back into such a contraction.
So where an operand is cheap to transpose, that is done behind an optimisation barrier.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from prfl_jax.system import accelerator


@jax.custom_vjp
def _product(a: jax.Array, w: jax.Array) -> jax.Array:
    return a @ w


def _forward(a: jax.Array, w: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return a @ w, (a, w)


def _backward(operands: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, w = operands
    fixed = lax.optimization_barrier
    if w.size > 4 * a.size:  # few rows (a dense layer): w is most of the traffic and is not transposed
        return fixed(w @ fixed(g.T)).T, fixed(a.T) @ g
    if a.size > g.size + w.size:  # many rows (the columns of a convolution)
        return g @ w.T, fixed(fixed(g.T) @ a).T
    return g @ w.T, a.T @ g


_product.defvjp(_forward, _backward)


def dot_general(
    lhs: jax.Array,
    rhs: jax.Array,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    **others: Any,
) -> jax.Array:
    """Drop-in for `jax.lax.dot_general`, which still computes everything but plain products of two matrices on CPU.

    Args:
      lhs: `[n, k]`.
      rhs: `[k, m]`.

    Returns:
      `[n, m]`.
    """
    (contract_lhs, contract_rhs), _ = dimension_numbers
    plain = (
        accelerator.on_cpu()
        and lhs.ndim == rhs.ndim == 2
        and tuple(contract_lhs) == (1,)
        and tuple(contract_rhs) == (0,)
        and lhs.dtype == rhs.dtype
        and precision is None
        and preferred_element_type in (None, lhs.dtype)
        and all(value is None for value in others.values())
    )
    if plain:
        return _product(lhs, rhs)
    return lax.dot_general(
        lhs, rhs, dimension_numbers, precision=precision, preferred_element_type=preferred_element_type, **others
    )


def precision_name(matmul: str, backend: str) -> str | None:
    """`config.engine.matmul` as `jax.default_matmul_precision` takes it; None leaves a CPU, which has float32, alone.

    JAX's own word `bfloat16` means the fastest that there is, on NVIDIA's cards TF32; there it has to be named as an
    algorithm. On a TPU `tensorfloat32` is three passes in bfloat16.
    """
    if backend == "cpu" and matmul == "float32":
        return None
    return "BF16_BF16_F32" if (backend, matmul) == ("gpu", "bfloat16") else matmul
