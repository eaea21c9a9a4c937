"""Chunks are sized by what those before them took."""

import math

import pytest

from prfl_jax.runtime.chunk_sizer import ChunkSizer


def test_the_first_chunk_is_one_window_and_chunks_at_most_double():
    pace = ChunkSizer(chunk_s=3.0)
    assert not pace.fits(0.25) and pace.at_most_s(0.25) == math.inf
    pace.observe(1.0, 0.001)  # an empty window says little about the next
    assert pace.fits(2.0) and not pace.fits(2.1)


def test_a_chunk_takes_about_as_long_as_it_should():
    pace = ChunkSizer(chunk_s=3.0)
    pace.observe(40.0, 4.0)
    assert pace.fits(30.0) and not pace.fits(31.0)
    pace.observe(30.0, 1.5)  # faster now
    assert pace.fits(60.0) and not pace.fits(61.0)


def test_the_slowest_pace_seen_counts_where_a_signal_would_wait():
    pace = ChunkSizer(chunk_s=3.0)
    pace.observe(10.0, 10.0)
    pace.observe(10.0, 1.0)
    assert pace.at_most_s(4.0) == pytest.approx(4.0)
