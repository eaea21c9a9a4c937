"""Curves and bars of any study: what is drawn, along which axis, and from where to where an axis goes."""

import pytest
from matplotlib.figure import Figure
from study_reports import PERPLEXITY, run_of

from prfl_jax.studies.bars import draw_bars
from prfl_jax.studies.curves import grid, panel


def test_a_panel_along_rounds_with_a_method_that_has_no_run():
    ax = Figure().subplots()
    runs = [run_of([0.2, 0.4, 0.6], {}, seed=0), run_of([0.4, 0.6, 0.8], {}, seed=1)]
    panel(ax, [("none", ()), ("ours", runs)], (0.5,), "title", along="window")
    line = ax.get_lines()[0]
    assert line.get_label() == "ours" and line.get_color() == "#D55E00"  # the second place's colour
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([30, 50, 70])
    assert ax.get_xlabel() == "round" and ax.get_ylabel() == "test accuracy (%)"
    assert ax.get_ylim() == pytest.approx((30 - 4 - 2, 70 + 4 + 1))


def test_a_perplexitys_axis_leaves_out_where_it_begins():
    ax = Figure().subplots()
    values = [10_000.0, 900.0, 700.0, 600.0, 500.0, 450.0, 430.0, 410.0]
    panel(ax, [("ours", [run_of(values, {}, metric=PERPLEXITY)])], (400.0,), "title")
    low, high = ax.get_ylim()
    assert low == pytest.approx(400 - 30 - 2) and high == pytest.approx(700 + 30 + 1)  # a quarter of the way
    assert ax.get_ylabel() == "test perplexity" and any(t.get_text() == " 400" for t in ax.texts)


def test_bars_are_means_and_say_what_is_missing():
    ax = Figure().subplots()
    bars = [("A", "#000000", [[10.0, 30.0], [None, None]]), ("B", "#D55E00", [[5.0, None], None])]
    draw_bars(ax, ["first", "second"], bars, "never")
    heights = [[bar.get_height() for bar in container] for container in ax.containers if hasattr(container, "patches")]
    assert [h for h in heights if len(h) == 2] == [[20.0, 0.0], [5.0, 0.0]]
    assert sorted(t.get_text() for t in ax.texts) == ["1 of 2", "never"]  # no run at all: nothing stands there
    assert [t.get_text() for t in ax.get_xticklabels()] == ["first", "second"]


def test_a_grid_hides_the_panels_that_are_left_over():
    figure, axes = grid(3, 4.0, 3.0)
    assert len(axes) == 3 and [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
