"""The figure: a picture comes out, and it shows what the report says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from marked import slow_except
from report_records import report_of, simulated_run

from prfl_jax.config.defaults import default_config
from prfl_jax.report import run_figure
from prfl_jax.report.figure import _draw_densities, _draw_metric, _mean_density

pyplot_free = pytest.importorskip("matplotlib.figure")


@pytest.fixture(scope="module")
def fedavg():
    config = default_config().to_dict() | {"strategy": "fedavg"}
    return report_of(simulated_run(prune=False, dt_s=40.0, windows=30), 10, config=config, headline="fedavg", seed=1)


@pytest.fixture(scope="module")
def prfl(fedavg):
    return report_of(simulated_run(windows=100, interval=10), 10, compare={"fedavg": fedavg})


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


@pytest.mark.parametrize("clients", slow_except([1, 10, 100], 10))
def test_a_readable_picture_is_written(tmp_path, clients, fedavg):
    report = report_of(simulated_run(clients=clients, windows=60, interval=5), clients)
    run_figure([report, fedavg], tmp_path / "new" / "figure.png")
    image = pixels(tmp_path / "new" / "figure.png")
    assert image.shape[0] > 800 and image.shape[1] > 1000
    assert (image[..., :3].min(axis=2) < 0.5).mean() > 0.005  # something is drawn


def test_the_same_report_gives_the_same_picture(tmp_path, prfl):
    run_figure(prfl, tmp_path / "a.png")
    run_figure(prfl, tmp_path / "b.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_the_lines_are_the_reports_numbers(prfl, fedavg):
    figure = pyplot_free.Figure()
    upper, lower = figure.subplots(2)
    _draw_metric(upper, [prfl])
    lines = {line.get_label(): line for line in upper.get_lines()}
    models = ["PR-FL: MaskFedAvg model", "PR-FL: FedAvg(B) model", "FedAvg: FedAvg(B) model"]
    assert list(lines)[:3] == models
    mask = lines["PR-FL: MaskFedAvg model"]
    assert list(mask.get_xdata()) == prfl["curves"]["mask"]["t_s"]
    assert list(mask.get_ydata()) == [100 * share for share in prfl["curves"]["mask"]["accuracy"]]
    _draw_densities(figure, lower, prfl)
    last = lower.get_lines()[9]
    assert last.get_drawstyle() == "steps-post" and last.get_label() == "9"
    assert last.get_xdata()[-1] == prfl["simulated_s"]
    assert [round(100 * d) for d in last.get_ydata()[:-1]] == prfl["clients"][9]["densities"]["percent"]


def test_another_seed_is_named_and_a_comparison_is_drawn_once(prfl, fedavg):
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [{**prfl, "compare": {}}, fedavg, {**prfl, "strategy": "mine", "compare": {}}])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[2:] == ["FedAvg, seed 1: FedAvg(B) model", "mine: MaskFedAvg model"]
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [prfl, fedavg])
    assert [text.get_text() for text in axes.get_legend().get_texts()].count("FedAvg: FedAvg(B) model") == 1


def test_several_seeds_are_one_line_and_a_band(prfl, fedavg):
    """Three seeds of FedAvg beside PR-FL, the third ending early: mean, least and most where all three are."""
    alone, others = {**prfl, "compare": {}}, []
    for seed, windows in ((1, 30), (2, 30), (3, 12)):
        records = list(simulated_run(prune=False, dt_s=40.0, windows=windows, seed=seed))
        others.append(report_of(records, 10, config=fedavg["config"], headline="fedavg", seed=seed))
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [alone, *others])
    (line,) = [line for line in axes.get_lines() if line.get_label().startswith("FedAvg")]
    assert line.get_label() == "FedAvg, mean of seeds 1, 2, 3: FedAvg(B) model"
    curves = [report["curves"]["fedavg"] for report in others]
    times = curves[2]["t_s"]
    assert times == curves[0]["t_s"][: len(times)] and len(times) < len(curves[0]["t_s"])
    shares = np.array([curve["accuracy"][: len(times)] for curve in curves])
    assert list(line.get_xdata()) == times
    np.testing.assert_allclose(line.get_ydata(), 100 * shares.sum(axis=0) / 3, rtol=1e-12)
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices
    for t_s, low, high in zip(times, 100 * shares.min(axis=0), 100 * shares.max(axis=0), strict=True):
        assert {round(y, 9) for x, y in edges if x == t_s} >= {round(low, 9), round(high, 9)}
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [{**others[0], "seed": 9}, *others])
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[2:] == ["FedAvg, mean of seeds 1, 2, 3, 9: FedAvg(B) model"]  # the run itself is one of the seeds


def test_an_accuracy_that_is_not_there_leaves_a_gap():
    record = {"kind": "eval", "window": 1, "model_s": 1.0, "fedavg": None}
    records = [
        {**record, "t_s": float(t), "mask": {"accuracy": share, "loss": None}}
        for t, share in enumerate((0.5, None, 0.7))
    ]
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [report_of(records, 2)])
    heights = axes.get_lines()[0].get_ydata()
    assert heights[0] == 50 and np.isnan(heights[1]) and heights[2] == 70
    assert len(axes.get_legend().get_texts()) == 1


def test_a_run_without_windows_still_gives_a_picture(tmp_path):
    run_figure(report_of([], 3), tmp_path / "empty.png")
    assert pixels(tmp_path / "empty.png").size
    with pytest.raises(ValueError, match="at least one report"):
        run_figure([], tmp_path / "none.png")


def test_mean_density_against_the_obvious_one(prfl):
    times, means = _mean_density(prfl["clients"])
    assert times == sorted(times)
    for t_s, mean in zip(times, means, strict=True):
        now = []
        for entry in prfl["clients"]:
            steps = zip(entry["densities"]["t_s"], entry["densities"]["percent"], strict=True)
            held = [percent for begin, percent in steps if begin <= t_s]
            now.append(held[-1] / 100)
        assert mean == pytest.approx(np.mean(now), abs=1e-12)


@pytest.mark.slow
def test_pyplot_is_not_touched():
    code = "import sys, prfl_jax.report as r; r.run_figure; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_of_two_changes_at_one_moment_the_later_one_holds():
    clients = [{"densities": {"t_s": [0.0, 6.0, 6.0], "percent": [100, 80, 50]}}] * 20
    times, means = _mean_density(clients)
    assert times == [0.0, 6.0] and means[-1] == pytest.approx(0.5)
