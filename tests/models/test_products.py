"""The product and the convolution by kernel rows: values and gradients against lax, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from tiny import primitives

from prfl_jax.engine.plan import MAX_ROWS, empty_row, stack_rows
from prfl_jax.models import products
from prfl_jax.models.matmul_conv import ROW_SIZE, ROWS, matmul_conv

PLAIN = (((1,), (0,)), ((), ()))
sides = st.integers(1, 40)


def drawn(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def with_gradients(function, *operands):
    def of(*operands):
        value, vjp = jax.vjp(function, *operands)
        return value, *vjp(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))

    return jax.jit(of)(*operands)


@settings(deadline=None, max_examples=12)
@given(n=sides, k=sides, m=sides)
def test_product_and_gradients_of_any_shape(n, k, m):
    with jax.enable_x64(True):
        a, w = drawn((n, k), 0), drawn((k, m), 1)
        got = with_gradients(lambda a, w: products.dot_general(a, w, PLAIN), a, w)
        g = np.cos(np.arange(n * m)).reshape(n, m)
        for x, y in zip(got, (a @ w, g @ w.T, a.T @ g), strict=True):
            assert x.shape == y.shape and x.dtype == jnp.float64
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "n,k,m,sizes",
    [
        (3, 40, 50, [3 * 50, 40 * 3, 3 * 40]),  # few rows: g; the gradient of a; a
        (200, 30, 8, [200 * 8, 8 * 30]),  # many rows: g; the gradient of w
        (20, 30, 40, []),  # neither: nothing is worth transposing
    ],
)
def test_transposes_what_is_small_and_never_the_larger_operand(n, k, m, sizes):
    a, w = drawn((n, k), 0), drawn((k, m), 1)
    backward = jax.make_jaxpr(lambda a, w, g: jax.vjp(lambda *x: products.dot_general(*x, PLAIN), a, w)[1](g))
    equations = backward(a, w, jnp.ones((n, m))).jaxpr.eqns
    assert [e.invars[0].aval.size for e in equations if e.primitive.name == "optimization_barrier"] == sizes


@pytest.mark.parametrize(
    "a,w,dims,options",
    [
        ((2, 3, 4), (4, 5), (((2,), (0,)), ((), ())), {}),
        ((3, 4), (5, 4), (((1,), (1,)), ((), ())), {}),
        ((2, 3, 4), (2, 4, 5), (((2,), (1,)), ((0,), (0,))), {}),
        ((3, 4), (4, 5), PLAIN, {"precision": lax.Precision.HIGHEST}),
        ((3, 4), (4, 5), PLAIN, {"preferred_element_type": jnp.float64}),
    ],
)
def test_everything_else_is_lax_dot_general(a, w, dims, options):
    with jax.enable_x64(True):
        a, w = drawn(a, 0).astype(jnp.float32), drawn(w, 1).astype(jnp.float32)
        np.testing.assert_array_equal(
            products.dot_general(a, w, dims, **options), lax.dot_general(a, w, dims, **options)
        )
        names = primitives(lambda a, w: products.dot_general(a, w, dims, **options), a, w)
        assert "custom_vjp_call" not in names


@pytest.mark.slow
@settings(deadline=None, max_examples=6)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(9, 13), st.integers(5, 8)),
    kernel=st.tuples(st.integers(ROWS, ROWS + 1), st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(2, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["SAME", ((2, 1), (1, 3))]),
)
def test_convolution_by_rows(size, kernel, strides, dilation, padding):
    channels = -(-ROW_SIZE // kernel[1])
    call = dict(rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    with jax.enable_x64(True):
        x, k = drawn((*size, channels), 0), drawn((*kernel[:2], channels, kernel[2]), 1)
        got, want = (
            with_gradients(lambda x, k, f=f: f(x, k, strides, padding, **call), x, k)
            for f in (matmul_conv, lax.conv_general_dilated)
        )
        for mine, theirs in zip(got, want, strict=True):
            assert mine.shape == theirs.shape
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)
        names = primitives(lambda x, k: matmul_conv(x, k, strides, padding, **call), x, k)
        assert names.count("dot_general") == kernel[0]


def test_vmap_over_clients():
    a, w = drawn((3, 4, 30), 0), drawn((3, 30, 20), 1)
    got = with_gradients(jax.vmap(lambda a, w: products.dot_general(a, w, PLAIN)), a, w)
    want = with_gradients(jax.vmap(jnp.matmul), a, w)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "matmul", "name"),
    [
        ("cpu", "float32", None),
        ("gpu", "float32", "float32"),
        ("gpu", "tensorfloat32", "tensorfloat32"),
        ("gpu", "bfloat16", "BF16_BF16_F32"),
        ("tpu", "bfloat16", "bfloat16"),
    ],
)
def test_the_precision_of_products_is_named_for_each_backend(backend, matmul, name):
    assert products.precision_name(matmul, backend) == name
    with jax.default_matmul_precision(name):
        assert jax.config.jax_default_matmul_precision == name


@pytest.mark.parametrize(("method", "axis"), [("prfl", "map"), ("prfl", "vmap"), ("heterofl", "map")])
def test_training_and_evaluation_compute_all_products_in_it(method, axis):
    """Forward and backward: a derived product could as well be traced where the setting is not seen."""
    simulation = tiny.simulation(method, engine__matmul="tensorfloat32", engine__clients=axis)
    state = jax.eval_shape(simulation.engine.init_state, simulation.init_key)
    plan = stack_rows([empty_row(4)], MAX_ROWS)
    rows = (simulation.engine.run_rows, state, simulation.device_data(), plan, np.int32(1), simulation.keys)
    test, _ = simulation.eval_sets()
    evaluation = (simulation.evaluator.pieces, state.params, test, np.int32(0), np.int32(1))
    for function, *arguments in (rows, evaluation):
        found = [e.params["precision"] for e in tiny.equations(function, *arguments) if "precision" in e.params]
        assert len(found) >= 2 and set(found) == {(lax.Precision.HIGH, lax.Precision.HIGH)}
