"""The matmul convolution against `lax.conv_general_dilated`, in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from tiny import primitives

from prfl_jax.models.matmul_conv import matmul_conv, with_matmul_conv

NHWC = ("NHWC", "HWIO", "NHWC")
pair = st.integers(1, 3)
pads = st.tuples(st.integers(-1, 3), st.integers(-1, 3))
paddings = st.one_of(st.sampled_from(["SAME", "VALID", "SAME_LOWER"]), st.tuples(pads, pads))


def drawn(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def agree(lhs, rhs, *args, **kwargs):
    """Values and both gradients equal lax's; returns the shape of the result."""

    @jax.jit  # one compilation for all of it
    def both(lhs, rhs, seed):
        out = []
        for function in (matmul_conv, lax.conv_general_dilated):
            value, vjp = jax.vjp(lambda x, k, f=function: f(x, k, *args, **kwargs), lhs, rhs)
            out.append((value, *vjp(jnp.cos(seed + jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))))
        return out

    for got, want in zip(*both(lhs, rhs, 1.0), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype == lhs.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    return jax.eval_shape(both, lhs, rhs, 1.0)[1][0].shape


@settings(deadline=None, max_examples=15)
@given(
    size=st.tuples(st.integers(1, 2), st.integers(3, 9), st.integers(3, 9), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    strides=st.tuples(pair, pair),
    dilation=st.one_of(st.none(), st.tuples(pair, pair)),
    padding=paddings,
)
def test_equals_lax_for_any_shape_stride_padding_dilation(size, kernel, strides, dilation, padding):
    with jax.enable_x64(True):
        lhs, rhs = drawn(size, 0), drawn((*kernel[:2], size[3], kernel[2]), 1)
        call = dict(rhs_dilation=dilation, dimension_numbers=NHWC)
        empty = 0 in agree(lhs, rhs, strides, padding, **call)
        names = primitives(lambda x, k: matmul_conv(x, k, strides, padding, **call), lhs, rhs)
        assert empty or ("conv_general_dilated" not in names and "dot_general" in names)


@pytest.mark.parametrize(
    "lhs,rhs,call",
    [
        ((2, 6, 6, 4), (3, 3, 2, 6), dict(feature_group_count=2)),
        ((4, 6, 6, 2), (3, 3, 2, 6), dict(batch_group_count=2)),
        ((2, 5, 5, 3), (3, 3, 3, 2), dict(lhs_dilation=(2, 2))),  # a transposed convolution
        ((2, 4, 6, 5), (3, 4, 3, 3), dict(dimension_numbers=("NCHW", "OIHW", "NCHW"))),
        ((2, 4, 6, 5), (3, 4, 3, 3), dict(dimension_numbers=None)),  # lax's own default is NCHW
        ((2, 6, 5, 4), (3, 3, 4, 2), dict(dimension_numbers=("NHWC", "HWIO", "NCHW"))),
        ((2, 7, 4), (3, 4, 2), dict(dimension_numbers=("NWC", "WIO", "NWC"))),
        ((1, 4, 5, 3, 2), (2, 2, 2, 2, 3), dict(dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))),
    ],
)
def test_everything_else_goes_to_lax(lhs, rhs, call):
    with jax.enable_x64(True):
        x, k = drawn(lhs, 0), drawn(rhs, 1)
        args = ((1,) * (len(lhs) - 2), ((1, 2), (0, 1)) if "lhs_dilation" in call else "SAME")
        call = {"dimension_numbers": NHWC, **call}
        agree(x, k, *args, **call)
        assert "conv_general_dilated" in primitives(lambda x, k: matmul_conv(x, k, *args, **call), x, k)


def test_a_result_without_pixels_has_laxs_shape():
    with jax.enable_x64(True):
        agree(drawn((1, 2, 2, 1), 0), drawn((5, 5, 1, 2), 1), (1, 1), "VALID", dimension_numbers=NHWC)


def test_channels_that_do_not_fit_are_refused_as_by_lax():
    x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 1, 1))
    with pytest.raises(ValueError, match="feature dimension"):
        matmul_conv(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def test_precision_and_type_of_the_result_are_passed_on():
    x, kernel = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 3), jnp.bfloat16)
    call = dict(dimension_numbers=NHWC, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    out = matmul_conv(x, kernel, (1, 1), "SAME", **call)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **call))


def test_vmap_over_kernels_makes_no_grouped_convolution():
    with jax.enable_x64(True):
        x, kernels = drawn((3, 2, 5, 5, 2), 0), drawn((3, 3, 3, 2, 4), 1)

        def conv(function):
            return jax.vmap(lambda x, k: function(x, k, (1, 1), "SAME", dimension_numbers=NHWC))

        np.testing.assert_allclose(
            conv(matmul_conv)(x, kernels), conv(lax.conv_general_dilated)(x, kernels), rtol=1e-12, atol=1e-12
        )
        assert "conv_general_dilated" not in primitives(conv(matmul_conv), x, kernels)


def test_interception_keeps_a_users_own_convolution():
    seen = []

    def own(*args, **kwargs):
        seen.append(args)
        return lax.conv_general_dilated(*args, **kwargs)

    module = nn.Conv(2, (3, 3), conv_general_dilated=own)
    x = jnp.ones((1, 5, 5, 1))
    params = module.init(jax.random.key(0), x)
    seen.clear()
    names = primitives(with_matmul_conv(module.apply), params, x)
    assert seen and "conv_general_dilated" in names
    plain = nn.Conv(2, (3, 3))
    assert "conv_general_dilated" not in primitives(with_matmul_conv(plain.apply), params, x)
    assert "conv_general_dilated" in primitives(plain.apply, params, x)  # outside, nothing has changed
