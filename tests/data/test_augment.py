"""What comes into an image from outside is background, whatever the normalisation; evaluation changes no image."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from marked import slow

from prfl_jax.data import Dataset, Split
from prfl_jax.data import device as D

KEY = jax.random.key(5)
COUNT, HEIGHT, WIDTH = 30, 7, 6
MEAN, STD = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2023, 0.1994, 0.2010])
FORMULAS = {"unit": lambda v: v / 255, "inverted": lambda v: 1 - v / 255, "cifar10": lambda v: (v / 255 - MEAN) / STD}
PAPER = {"black": 0, "white": 255, "blue": (30, 90, 200)}


def drawings(paper, channels, seed=0):
    """Lines on paper; `photo`: no two border pixels alike. `[N, H, W, C]` uint8."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (COUNT, HEIGHT, WIDTH, channels), dtype=np.uint8)
    if paper == "photo":
        return noise
    ink = rng.random((COUNT, HEIGHT, WIDTH, 1)) < 0.3
    return np.where(ink, noise, np.array(PAPER[paper], np.uint8)).astype(np.uint8)


def on_device(x):
    dataset = Dataset("x", x, np.arange(COUNT, dtype=np.int32) % 3, x[:3], np.arange(3, dtype=np.int32), 3)
    return D.to_device(dataset, Split((np.arange(COUNT),), np.arange(0), np.arange(3), {}))


def slow_ways(image, around):
    """All crops of an image `[H, W, C]` float64 that lies on endless `around` `[C]`, plain and mirrored."""
    for top, left, flip in itertools.product(range(-4, 5), range(-4, 5), (False, True)):
        out = np.empty_like(image)
        for i in range(HEIGHT):
            for j in range(WIDTH):
                row, column = i + top, (WIDTH - 1 - j if flip else j) + left
                inside = 0 <= row < HEIGHT and 0 <= column < WIDTH
                out[i, j] = image[row, column] if inside else around
        yield out


CASES = [
    (paper, channels, normalize)
    for paper in (*PAPER, "photo")
    for channels in (1, 3)
    for normalize in FORMULAS
    if (channels == 3 or normalize != "cifar10") and (channels == 3 or paper != "blue")
]


# Drawings on paper that becomes black. Whichever case is first takes seconds to compile.
FAST = ("white", 1, "inverted")


@pytest.mark.parametrize(("paper", "channels", "normalize"), [c if c == FAST else slow(*c) for c in CASES])
def test_every_normalisation_and_augmentation_against_a_loop(paper, channels, normalize):
    x = drawings(paper, channels)
    data, formula = on_device(x), FORMULAS[normalize]
    # a photograph lies on what becomes 0; for `cifar10` on black bytes, as where PR-FL's settings come from
    ground = PAPER.get(paper, 255 if normalize == "inverted" else 0)
    around = formula(np.broadcast_to(np.array(ground, np.float64), (channels,)))
    if paper == "photo" and normalize != "cifar10":
        assert (around == 0).all()
    rows = np.asarray(D.batch_indices(data, KEY, 0, 2, 1, COUNT))[0]
    plain, _ = D.draw_batches(data, KEY, 0, 2, 1, COUNT, normalize, "none")
    np.testing.assert_allclose(plain[0], formula(x[rows].astype(np.float64)), rtol=0, atol=1e-6)
    varied, y = D.draw_batches(data, KEY, 0, 2, 1, COUNT, normalize, "crop_flip")
    np.testing.assert_array_equal(np.asarray(y)[0], np.arange(COUNT)[rows] % 3)
    for got, row in zip(np.asarray(varied)[0], rows, strict=True):
        ways = np.stack(list(slow_ways(formula(x[row].astype(np.float64)), around)))
        assert np.abs(ways - got).max(axis=(1, 2, 3)).min() < 1e-5


@pytest.mark.slow
def test_blank_paper_stays_blank():
    """Of white images turned to black ones no border may be seen; nor where the data were never asked."""
    white = jnp.full((COUNT, HEIGHT, WIDTH, 1), 255, jnp.uint8)
    asked = on_device(np.asarray(white))
    unasked = D.DeviceData(white, asked.y, asked.index, asked.size)
    for data in (asked, unasked):
        x, _ = D.draw_batches(data, KEY, 0, 0, 2, 10, "inverted", "crop_flip")
        assert np.asarray(x).min() == np.asarray(x).max() == 0
    x, _ = D.draw_batches(asked, KEY, 0, 0, 2, 10, "unit", "crop_flip")
    assert np.asarray(x).min() == 1


def test_background_is_what_most_border_pixels_are():
    x = np.full((2, 5, 4, 2), (7, 250), np.uint8)
    assert D.find_background(x).tolist() == [7, 250]
    x[:, 1:-1, 1:-1] = 99  # what lies inside does not count
    assert D.find_background(x).tolist() == [7, 250]
    x[0, ..., 0] = np.arange(4)  # half of the border pixels, then one less
    assert D.find_background(x).tolist() == [-1, -1]
    x[0, 0, 0, 0] = 7
    assert D.find_background(x).tolist() == [7, 250]
    assert D.find_background(drawings("photo", 3)).tolist() == [-1] * 3
    for shape in ((3, 1, 1, 1), (3, 1, 5, 1), (3, 5, 1, 1), (3, 2, 2, 1)):
        assert D.find_background(np.full(shape, 8, np.uint8)).tolist() == [8]
    assert tiny.simulation(data__augment="crop_flip").device_data().background.tolist() == [0]  # MNIST


def test_evaluation_changes_no_image():
    plain, varied = (tiny.simulation("prfl", data__augment=kind) for kind in ("none", "crop_flip"))
    params = jax.tree.map(np.array, plain.init_state(plain.init_key).params)
    for a, b in zip(plain.eval_sets(), varied.eval_sets(), strict=True):
        assert a is not None and b is not None
        np.testing.assert_array_equal(a.x, b.x)
        one, other = plain.evaluator(params, a), varied.evaluator(params, b)
        assert one.correct.tolist() == other.correct.tolist() and one.loss == other.loss
        assert other.loss == varied.evaluator(params, b).loss  # and nothing is drawn
