"""Chunks are sized by what those before them took."""

import math

import pytest

from prfl_jax.pace import Pace


def test_the_first_chunk_is_one_window_and_chunks_at_most_double():
    pace = Pace(chunk_s=3.0)
    assert not pace.fits(0.25) and pace.at_most_s(0.25) == math.inf
    pace.saw(1.0, 0.001)  # an empty window says little about the next
    assert pace.fits(2.0) and not pace.fits(2.1)


def test_a_chunk_takes_about_as_long_as_it_should():
    pace = Pace(chunk_s=3.0)
    pace.saw(40.0, 4.0)
    assert pace.fits(30.0) and not pace.fits(31.0)
    pace.saw(30.0, 1.5)  # faster now
    assert pace.fits(60.0) and not pace.fits(61.0)


def test_the_slowest_pace_seen_counts_where_a_signal_would_wait():
    pace = Pace(chunk_s=3.0)
    pace.saw(10.0, 10.0)
    pace.saw(10.0, 1.0)
    assert pace.at_most_s(4.0) == pytest.approx(4.0)
