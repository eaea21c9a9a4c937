"""Every way to write a convolution against `lax.conv_general_dilated`, in float64, and its rounding in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from tiny import primitives

from prfl_jax.models import conv_forms
from prfl_jax.models.matmul_conv import matmul_conv

NHWC = ("NHWC", "HWIO", "NHWC")
pads = st.tuples(st.integers(-1, 3), st.integers(-1, 3))
FORMS = {  # form: kernels it can take
    "joined": st.tuples(st.integers(1, 6), st.integers(1, 6)),
    "by_row": st.tuples(st.integers(1, 6), st.integers(1, 6)),
    "by_tap": st.tuples(st.integers(1, 6), st.integers(1, 6)),
    "filtered_3x3": st.just((3, 3)),
    "filtered_5_rows": st.tuples(st.just(5), st.integers(1, 6)),
}


def times(a, w):
    assert a.ndim == w.ndim == 2
    return a @ w


def sizes(images, kernel, padding):
    return tuple(images[1 + k] + sum(padding[k]) - kernel[k] + 1 for k in range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_equals_lax_with_both_gradients(name, data):
    kernel = data.draw(FORMS[name])
    size = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)))
    padding = data.draw(st.tuples(pads, pads))
    out = sizes(size, kernel, padding)
    if min(out) < 1:
        return
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        images, weights = rng.normal(size=size), rng.normal(size=(*kernel, size[3], 2))
        form = getattr(conv_forms, name)
        functions = (
            lambda x, k: form(x, k, padding, out, times),
            lambda x, k: lax.conv_general_dilated(x, k, (1, 1), padding, dimension_numbers=NHWC),
        )
        results = []
        for function in functions:
            value, vjp = jax.vjp(jax.jit(function), images, weights)
            results.append((value, *vjp(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))))
        for got, want in zip(*results, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "image,kernel,products",
    [
        ((16, 16, 32), (3, 3), 16),  # F(2x2, 3x3)
        ((15, 9, 32), (3, 3), 16),
        ((4, 4, 32), (3, 3), 9),  # by tap
        ((2, 2, 64), (3, 3), 9),
        ((1, 1, 64), (3, 3), 1),
        ((14, 14, 32), (5, 5), 7),  # F(2, 3) and F(2, 2) over the rows
        ((28, 28, 1), (5, 5), 1),  # too little in a product of a tap
        ((16, 16, 3), (3, 3), 1),
        ((16, 16, 32), (1, 1), 1),
    ],
)
def test_each_shape_takes_the_form_with_fewest_multiplications(image, kernel, products):
    x, k = jnp.ones((2, *image)), jnp.ones((*kernel, image[2], 8))
    names = primitives(lambda x, k: matmul_conv(x, k, (1, 1), "SAME", dimension_numbers=NHWC), x, k)
    assert names.count("dot_general") == products and "conv_general_dilated" not in names


SHAPES = [((16, 16, 64), 3), ((8, 8, 256), 3), ((2, 2, 256), 3), ((14, 14, 32), 5)]


@pytest.mark.slow
@pytest.mark.parametrize("image,kernel", SHAPES)
def test_rounding_in_float32_is_that_of_the_plain_sum(image, kernel):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, *image)), 0)  # after a relu
    k = rng.normal(size=(kernel, kernel, image[2], 32)) / kernel / image[2] ** 0.5

    def errors(function, x, k):
        value, vjp = jax.vjp(function, jnp.asarray(x, jnp.float32), jnp.asarray(k, jnp.float32))
        got = (value, *vjp(jnp.asarray(seed, jnp.float32)))
        return [float(np.abs(np.asarray(g) - w).max() / np.abs(w).max()) for g, w in zip(got, want, strict=True)]

    def conv(function):
        return lambda x, k: function(x, k, (1, 1), "SAME", dimension_numbers=NHWC)

    seed = rng.normal(size=(4, *image[:2], 32))
    with jax.enable_x64(True):
        value, vjp = jax.vjp(conv(lax.conv_general_dilated), x, k)
        want = [np.asarray(v) for v in (value, *vjp(jnp.asarray(seed)))]
    ours, plain = errors(conv(matmul_conv), x, k), errors(conv(lax.conv_general_dilated), x, k)
    assert max(ours) < 3 * max(plain) and max(ours) < 3e-6


def test_the_share_of_taps_inside_an_image():
    assert conv_forms.inside((2, 2), (2, 2), (3, 3), ((1, 1), (1, 1))) == pytest.approx(16 / 36)
    assert conv_forms.inside((4, 4), (4, 4), (3, 3), ((1, 1), (1, 1))) == pytest.approx(100 / 144)
    assert conv_forms.inside((5, 5), (3, 3), (3, 3), ((0, 0), (0, 0))) == 1
