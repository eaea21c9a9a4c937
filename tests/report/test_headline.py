"""The metric of a report as text, in tables, figures and pages: unit, direction, axis; metrics are never mixed."""

from __future__ import annotations

import io
import json
import math
import re

import numpy as np
import pytest
from page_browser import wait_until
from report_records import of_language_model, report_of, simulated_run

from prfl_jax.config.defaults import default_config
from prfl_jax.report import Progress, load_schema, run_figure, summary_text, write_report
from prfl_jax.report.figure import _draw_metric
from prfl_jax.report.html import figures, find_runs, group_runs, tables, write_page
from prfl_jax.report.metric import ACCURACY, Headline
from prfl_jax.report.names import number_text
from prfl_jax.report.tensorboard import scalars
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import PERPLEXITY

pyplot_free = pytest.importorskip("matplotlib.figure")

LEVELS = (1000.0, 10.0, 1.5)
PPL = Headline.of_task(PERPLEXITY)


def language_model(strategy="fedavg", seed=0, **run):
    config = {**default_config().to_dict(), "strategy": strategy, "task": {"name": "language_model"}}
    records = of_language_model(simulated_run(windows=60, seed=seed, pace_s=150.0, **run))
    changes = {"config": config, "headline": "mask", "seed": seed, "metric": PERPLEXITY, "thresholds": LEVELS}
    return report_of(records, 10, **changes)


@pytest.fixture(scope="module")
def fedavg():
    return language_model(prune=False)


def of_version_1(report):
    """The report as version 1 had it."""
    report = json.loads(json.dumps(report))
    del report["metric"], report["final"]["metric"]
    return report | {"schema_version": 1}


def test_values_and_levels_as_text():
    assert [ACCURACY.text(v) for v in (0.93449, None)] == ["93.4 %", "-"]
    assert [PPL.text(v) for v in (93.449, 1234.56, None, math.inf)] == ["93.45", "1,235", "-", "inf"]
    assert [ACCURACY.level_text(v) for v in ("0.8", 0.835)] == ["80 %", "83.5 %"]
    assert [PPL.level_text(v) for v in ("200", 6.5)] == ["200", "6.5"]
    assert (ACCURACY.short_text(0.9214), PPL.short_text(123.44)) == ("acc 92.1%", "ppl 123.4")
    assert Headline("top_5", True, True).short_text(0.5) == "top 5 50.0%"
    assert (ACCURACY.axis(), PPL.axis()) == ("test accuracy (%)", "test perplexity")
    assert ACCURACY.easiest_first(["0.9", "0.85"]) == ["0.85", "0.9"] and PPL.easiest_first(["9", "80"]) == ["80", "9"]
    assert number_text(-0.012345) == "-0.01235"


def test_an_axis_over_a_decade_is_logarithmic():
    assert PPL.is_logarithmic([None, 500.0, 49.0]) and not PPL.is_logarithmic([490.0, 49.0])
    assert not PPL.is_logarithmic([500.0, 0.0]) and not PPL.is_logarithmic([])
    assert not ACCURACY.is_logarithmic([0.01, 0.9])


def test_the_summary_of_a_language_model(fedavg):
    report = language_model("prfl")
    report = {**report, "compare": {}}
    text = summary_text(report, {"fedavg": fedavg})
    head, own, *_ = [line for line in text.splitlines() if "perplexity" in line or "MaskFedAvg model *" in line]
    t_s = report["curves"]["mask"]["t_s"][-1]
    assert head.split() == f"Test perplexity at {t_s:.0f} s at the end 1000 after 10 after 1.5 after".split()
    times = [report["time_to_perplexity"][key] for key in ("1000", "10")]
    assert own.split()[-5:] == [f"{times[0]:.0f}", "s", f"{times[1]:.0f}", "s", "never"]
    assert number_text(report["final"]["perplexity"]) in own.split()
    assert f"* the headline model; accuracy {100 * report['final']['accuracy']:.1f} %\n" in text
    assert "%" not in own and "worst" not in text and max(map(len, text.splitlines())) <= 100
    with pytest.raises(ValueError, match="its metric is"):
        summary_text(report, {"fedavg": report_of(simulated_run(windows=20), 10)})


def test_the_figure_has_a_logarithmic_axis_and_plain_levels(fedavg):
    axes = pyplot_free.Figure().subplots()
    report = language_model("prfl")
    _draw_metric(axes, [report, fedavg, language_model(prune=False, seed=1)])
    values = report["curves"]["mask"]["perplexity"]
    assert max(values) > 10 * min(values) and axes.get_yscale() == "log"
    assert list(axes.get_lines()[0].get_ydata()) == values
    assert axes.get_ylabel() == "test perplexity"
    assert [text.get_text() for text in axes.texts] == ["1000", "10", "1.5"]
    assert [line.get_ydata()[0] for line in axes.get_lines()[-3:]] == [1000.0, 10.0, 1.5]
    mean = next(line for line in axes.get_lines() if "mean of seeds 0, 1" in line.get_label())
    seeds = [fedavg, language_model(prune=False, seed=1)]
    curves = np.array([one["curves"]["mask"]["perplexity"] for one in seeds])
    np.testing.assert_allclose(mean.get_ydata(), curves.mean(axis=0), rtol=1e-12)
    near = language_model("prfl", best=0.12)
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [near])
    assert axes.get_yscale() == "linear"


def test_a_share_of_which_less_is_better_is_drawn_in_percent(fedavg):
    curves = {name: curve | {"error": [1 - a for a in curve["accuracy"]]} for name, curve in fedavg["curves"].items()}
    metric = {"name": "error", "higher_is_better": False, "share": True}
    axes = pyplot_free.Figure().subplots()
    _draw_metric(axes, [fedavg | {"curves": curves, "metric": metric, "time_to_error": {"0.2": 9.0}}])
    shares = [100 * (1 - a) for a in fedavg["curves"]["mask"]["accuracy"]]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), shares, rtol=1e-12)
    assert [text.get_text() for text in axes.texts] == ["20 %"] and axes.get_ylabel() == "test error (%)"


def test_reports_of_two_metrics_are_not_drawn_in_one_figure(fedavg, tmp_path):
    with pytest.raises(ValueError, match="different metrics: accuracy, perplexity"):
        run_figure([report_of(simulated_run(windows=20), 10), fedavg], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_progress_shows_the_metric():
    cases = ((ACCURACY, 0.9214, "acc 92.1%"), (PPL, 321.04, "ppl 321"), (PPL, 12345.6, "ppl 12,346"))
    for metric, value, shown in cases:
        stream = io.StringIO()
        with Progress(10, stream=stream, metric=metric) as progress:
            progress.update(5, 70.0, value=value, model="mask")
        assert f"  mask {shown}  " in f"{stream.getvalue().splitlines()[0]}  "


def test_tensorboard_has_the_metric_too():
    record = next(r for r in of_language_model(simulated_run(windows=20)) if r["kind"] == "eval")
    found = dict(scalars(record))
    assert found["perplexity/mask"] == record["mask"]["perplexity"] > 1 and found["accuracy/fedavg"] < 1
    assert found["loss/mask"] == record["mask"]["loss"]


# --- reports of version 1 ---


def test_a_report_of_version_1_reads_as_before(tmp_path):
    new = report_of(simulated_run(windows=40), 10)
    old = of_version_1(new)
    assert summary_text(old) == summary_text(new) == summary_text({**new, "compare": {}}, {})
    assert summary_text(new, {"fedavg": old}) == summary_text(new, {"fedavg": new})
    run_figure(old, tmp_path / "old.png")
    run_figure(new, tmp_path / "new.png")
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()
    write_report(tmp_path / "one" / "report.json", old)
    (run,) = find_runs([str(tmp_path)])
    assert run.report == new and run.values == new["curves"]["mask"]["accuracy"]
    write_report(tmp_path / "two" / "report.json", old | {"schema_version": 9})
    with pytest.raises(UserError, match="two/report.json: has schema_version=9"):
        find_runs([str(tmp_path)])


# --- the HTML page ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fedavg):
    """Two seeds of two methods of a language model, and one run of a classification on the same data."""
    path = tmp_path_factory.mktemp("runs")
    reports = [language_model("prfl", 0), language_model("prfl", 1), fedavg, language_model(prune=False, seed=1)]
    for k, report in enumerate([*reports, report_of(simulated_run(windows=40), 10)]):
        write_report(path / f"{k}.json", report | {"device": {"kind": "cpu"}})
    return path


def test_each_metric_has_sections_of_its_own(folder, tmp_path):
    groups = group_runs(find_runs([str(folder)]))
    assert [(g.name, g.task, len(g.runs)) for g in groups] == [
        ("PR-FL", "perplexity", 2), ("FedAvg", "perplexity", 2), ("PR-FL", "accuracy", 1),
    ]  # fmt: skip
    write_page(find_runs([str(folder)]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    heads = re.findall(r"<h[23]>((?:Perplexity|Accuracy|Time to)[^<]*)</h", text)
    assert heads == ["Perplexity", "Time to perplexity", "Accuracy", "Time to accuracy"]
    assert "at which the perplexity was reached, or a better one" in text


def test_the_page_draws_the_metric_in_its_unit(folder):
    groups = [group for group in group_runs(find_runs([str(folder)])) if group.task == "perplexity"]
    figure = figures.headline(groups)
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis.tickformat == ",~g"
    assert figure.layout.yaxis.title.text == "test perplexity (MaskFedAvg model)"
    assert [b["label"] for b in figure.layout.updatemenus[1].buttons] == ["log", "linear"]
    line = next(trace for trace in figure.data if trace.meta == {"group": 0, "part": "line"})
    curves = [run.report["curves"]["mask"]["perplexity"] for run in groups[0].runs]
    np.testing.assert_allclose(line.y, np.array(curves).mean(axis=0), rtol=1e-12)
    assert "%{y:,.4~g}" in line.hovertemplate
    accuracy = figures.headline([group for group in group_runs(find_runs([str(folder)])) if group.task == "accuracy"])
    assert accuracy.layout.yaxis.type is None and accuracy.layout.yaxis.tickformat == ".0%"
    assert "%{y:.1%}" in accuracy.data[0].hovertemplate


def test_the_table_of_times_begins_with_the_easiest_level(folder):
    groups = [group for group in group_runs(find_runs([str(folder)])) if group.task == "perplexity"]
    text = tables.times(groups)
    assert re.findall("<th>([^<]*)</th>", text) == [
        "method", "runs", "1000", "10", "1.5", "perplexity at the end", "of the",
    ]  # fmt: skip
    ends = [run.report["final"]["perplexity"] for run in groups[0].runs]
    assert f"<td>{number_text(sum(ends) / 2)} ({number_text(min(ends))}–{number_text(max(ends))})" in text
    assert "never" in text and set(load_schema()["required"]) <= groups[0].runs[0].report.keys()


def test_a_browser_draws_both_metrics(folder, tmp_path, browser):
    page = tmp_path / "page.html"
    write_page(find_runs([str(folder)]), page)
    browser.get(page.as_uri())
    wait_until(lambda: browser.execute_script("return document.body.dataset.drawn") == "yes")

    def ticks(place):
        script = f"return [...document.querySelectorAll('#{place} .ytick')].map(one => one.textContent)"
        return browser.execute_script(script)

    assert {"50", "20", "10", "5", "2"} <= set(ticks("headline")) and all("%" in tick for tick in ticks("headline-1"))
    buttons = browser.find_elements("css selector", "#headline .updatemenu-button")
    next(button for button in buttons if button.text == "linear").click()
    wait_until(lambda: "40" in ticks("headline"))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
