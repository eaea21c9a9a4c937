"""The page about runs: what it holds, and that a real browser shows it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from unittest import mock

import pytest
import tiny
from page_browser import wait_until
from paths import ROOT

from prfl_jax.report import write_report
from prfl_jax.report.html import figures, find_runs, group_runs, tables, write_page
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs in folders of their own, two of them of one method, and a report without its records."""
    path = tmp_path_factory.mktemp("runs")
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for name, method, changes in (
            ("a", "prfl", {"rounds": 12}),
            ("b", "fedbuff", {"rounds": 12}),
            ("c", "prfl", {"rounds": 12, "local__lr": 0.1}),
        ):
            Experiment(tiny.config(method, **changes)).run(path / name, progress=False)
    report = json.loads((path / "b" / "report.json").read_text())
    report["seed"] = 7
    report["strategy"] = "</script><b>"
    write_report(path / "alone.json", report)
    return path


def test_which_runs_are_found_and_how_they_are_called(folder):
    runs = find_runs([str(folder)])
    assert [run.name for run in runs] == [
        "PR-FL, seed 0 (a)", "</script><b>, seed 7", "FedBuff, seed 0", "PR-FL, seed 0 (c)",
    ]  # fmt: skip
    assert [run.name for run in find_runs([str(folder / "a"), str(folder / "a" / "report.json")])] == ["PR-FL, seed 0"]


def test_curves_over_each_axis(folder):
    run = find_runs([str(folder / "a")])[0]
    records = [json.loads(line) for line in (folder / "a" / "metrics.jsonl").read_text().splitlines()]
    evals = [record for record in records if record["kind"] == "eval"]
    figure = figures.headline(group_runs([run]))
    buttons = {b["label"]: b["args"] for b in figure.layout.updatemenus[0].buttons}
    assert list(buttons) == ["simulated time", "windows", "bytes", "host time"]
    shown = {label: args[0]["x"][0] for label, args in buttons.items()}
    assert list(shown["simulated time"]) == [r["t_s"] for r in evals]
    assert list(shown["windows"]) == [r["window"] for r in evals]
    assert list(shown["bytes"]) == [(r["bytes_up"] + r["bytes_down"]) / 1e9 for r in evals]
    assert list(shown["host time"]) == [r["host_s"] for r in evals]
    assert list(figure.data[0].y) == [r["mask"]["accuracy"] for r in evals]
    assert figure.layout.yaxis.title.text == "test accuracy (MaskFedAvg model)"


def test_an_axis_that_some_runs_lack(folder):
    known, alone = find_runs([str(folder / "a"), str(folder / "alone.json")])
    old = copy.deepcopy(alone)
    for name in ("window", "bytes_up", "bytes_down", "bytes_client_down"):
        del old.report["curves"]["mask"][name]
    buttons = {b["label"]: b["args"] for b in figures.headline(group_runs([known, old])).layout.updatemenus[0].buttons}
    assert buttons["host time"][1]["xaxis.title.text"] == "host time, s (not known of 1 runs)"
    assert list(buttons["windows"][0]["x"][1]) == [None]
    menu = figures.headline(group_runs([old])).layout.updatemenus[0]
    assert [b["label"] for b in menu.buttons] == ["simulated time"] and menu.visible is False


def test_the_timeline_is_what_the_clock_did(folder):
    run = find_runs([str(folder / "a")])[0]
    figure = figures.timeline(run)
    phases = {trace.name: trace for trace in figure.data}
    assert list(phases) == ["download", "train", "upload", "wait"]
    arrivals = run.arrivals()
    assert len(arrivals) == run.report["client_updates"]
    for k, arrival in enumerate(arrivals):
        ends = [phases[name].base[k] + phases[name].x[k] for name in ("download", "train", "upload")]
        starts = [phases[name].base[k] for name in ("train", "upload", "wait")]
        assert ends == pytest.approx(starts) and min(phases[name].x[k] for name in phases) >= 0
        assert ends[-1] == pytest.approx(arrival["arrived_s"])
    waits = sum(phases["wait"].x)
    assert waits == pytest.approx(sum(client["waiting_s"] for client in run.report["clients"]))
    assert figures.timeline(find_runs([str(folder / "alone.json")])[0]) is None


def test_tables_say_times_ends_and_differences(folder):
    runs = find_runs([str(folder / name) for name in "abc"])
    groups = group_runs(runs)
    assert [group.name for group in groups] == ["PR-FL (local.lr=0.25)", "PR-FL (local.lr=0.1)", "FedBuff"]
    text = tables.differences(groups)
    assert "local.lr" in text and "strategy" in text and "<th>key</th>" in text and ">model.name" not in text
    assert tables.differences(groups[:1]) == "<p>All runs have the same config.</p>"
    assert tables.times(groups).count("<tr>") == 4 and "<th>20 %</th>" in tables.times(groups)
    assert tables.ends(groups).count("rounds") == 3


@pytest.mark.slow
def test_mistakes_of_the_user(folder, tmp_path):
    with pytest.raises(UserError, match="no report there"):
        find_runs([str(tmp_path)])
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(UserError, match="report.json: not a report"):
        find_runs([str(tmp_path)])

    def script(*arguments):
        done = subprocess.run(
            [sys.executable, "scripts/report.py", *arguments], cwd=ROOT, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return done.returncode, done.stderr

    for arguments, words in (
        ((), "no folder is given"),
        ((str(folder),), "--out is missing: give the HTML file"),
        ((str(folder), f"--out={tmp_path}/nowhere/report.html"), "allowed is a file in a folder that exists"),
    ):
        code, said = script(*arguments)
        assert code == 2 and words in said and said.count("\n") == 1


def test_a_browser_draws_the_page_and_hides_a_curve(folder, tmp_path, browser):
    page = tmp_path / "page.html"
    write_page(find_runs([str(folder)]), page, "Three <runs>")
    browser.get(page.as_uri())
    wait_until(lambda: browser.execute_script("return document.body.dataset.drawn") == "yes")
    assert browser.title == "Three <runs>"

    def drawn(place):
        return browser.execute_script(f"return document.querySelectorAll('#{place} .trace').length")

    assert drawn("headline") == 4 and drawn("timeline") == 4 and drawn("traffic") == 3
    visible = "return document.getElementById('headline').data.map(trace => trace.visible ?? true)"
    assert browser.execute_script(visible) == [True] * 4
    browser.find_elements("css selector", "#headline .legendtoggle")[2].click()
    wait_until(lambda: browser.execute_script(visible) == [True, True, "legendonly", True])
    wait_until(lambda: drawn("headline") == 3)

    def x_title():
        return browser.execute_script("return document.getElementById('headline').layout.xaxis.title.text")

    buttons = browser.find_elements("css selector", "#headline .updatemenu-button")
    [button for button in buttons if button.text == "windows"][0].click()
    wait_until(lambda: x_title().startswith("windows"))

    def choose(run):
        browser.execute_script("document.getElementById('run').value = arguments[0]", run)
        browser.execute_script("document.getElementById('run').dispatchEvent(new Event('change'))")

    choose(1)
    assert "No timeline" in browser.find_element("id", "timeline").text and drawn("densities") == 4
    choose(2)
    wait_until(lambda: drawn("timeline") == 4)
    row = browser.find_element("css selector", "table tbody tr:last-child").text
    assert row.startswith("</script><b>") and "seed 7" in row
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_twenty_runs_of_a_thousand_points_open_in_three_seconds(folder, tmp_path, browser):
    report = json.loads((folder / "a" / "report.json").read_text())
    points = 1000
    for seed in range(20):
        for curve in report["curves"].values():
            curve["t_s"] = curve["model_s"] = [float(k) for k in range(points)]
            curve["accuracy"] = [0.9 * k / (k + 50 + seed) for k in range(points)]
            curve["loss"] = [1.0] * points
            curve["window"] = list(range(points))
            for name in ("bytes_up", "bytes_down", "bytes_client_down"):
                curve[name] = [1e8 * k for k in range(points)]
        report["config"]["local"]["lr"] = 0.01 * (1 + seed)  # twenty methods: a curve each
        (tmp_path / f"{seed:02d}").mkdir()
        write_report(tmp_path / f"{seed:02d}" / "report.json", report)
        shutil.copy(folder / "a" / "metrics.jsonl", tmp_path / f"{seed:02d}" / "metrics.jsonl")
    page = tmp_path / "page.html"
    write_page(find_runs([str(tmp_path)]), page)
    browser.get("about:blank")
    browser.get(page.as_uri())
    wait_until(lambda: browser.execute_script("return document.body.dataset.drawn") == "yes")
    opened_ms = browser.execute_script("return performance.now()")
    print(f"opened in {opened_ms / 1e3:.2f} s, {page.stat().st_size / 1e6:.1f} MB")
    assert browser.execute_script("return document.querySelectorAll('#headline .trace').length") == 20
    assert opened_ms < 3000 or os.getloadavg()[0] > 1.5  # a bound for a machine that has nothing else to do
