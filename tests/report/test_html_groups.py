"""Runs that differ in their seed alone are one method on a page: one line in a band, one row, one colour."""

from __future__ import annotations

import copy
import json
import re
import statistics

import numpy as np
import pytest
from page_browser import wait_until
from paths import ROOT
from report_records import report_of, simulated_run

from prfl_jax import strategies
from prfl_jax.config.canonical import to_dict
from prfl_jax.config.defaults import default_config
from prfl_jax.report import write_report
from prfl_jax.report.groups import spread_along, spread_on_grid
from prfl_jax.report.html import figures, find_runs, group_runs, tables, write_page
from prfl_jax.report.html.spread import Spread
from prfl_jax.report.names import seconds_text

METHODS = tuple(strategies.METHODS)
LEVELS = (0.8, 0.9)


def make(folder, name, strategy="prfl", seed=0, changes=None, **run):
    """A made-up report; `changes` are of its config, by dotted key."""
    config = to_dict(strategies.use(default_config(), strategy))
    config["seed"] = seed
    for key, value in (changes or {}).items():
        group, _, leaf = key.rpartition(".")
        (config[group] if group else config)[leaf] = value
    how = {"windows": 40, "seed": seed, "eval_every_s": 20.0, **run}
    report = report_of(list(simulated_run(**how)), 10, config=config, seed=seed, thresholds=LEVELS)
    report["device"] = {"kind": "cpu"}
    folder.mkdir(parents=True, exist_ok=True)
    write_report(folder / f"{name}.json", report)
    return report


def groups_of(folder):
    return group_runs(find_runs([str(folder)]))


def line_of(figure, group, part="line"):
    return [trace for trace in figure.data if trace.meta == {"group": group.number, "part": part}]


# --- who belongs together ---


def test_what_changes_no_number_does_not_keep_seeds_apart(tmp_path):
    """Another folder, machine, data directory or dealing out; a key of a later version; a whole number as a float."""
    make(tmp_path / "a", "0", seed=0)
    make(tmp_path / "b", "1", seed=1, changes={"data.dir": "/elsewhere", "engine.devices": 1, "engine.group": 3})
    report = make(tmp_path / "c", "2", seed=2, changes={"window.dt_s": 14, "checkpoint.every_s": 5.0, "compare": []})
    del report["config"]["privacy"], report["config"]["window"]["deadline_share"]  # from before there were these
    report |= {"commit": "fffffff", "device": {"kind": "gpu"}, "config_hash": "other"}
    write_report(tmp_path / "c" / "2.json", report)
    (group,) = groups_of(tmp_path)
    assert group.name == "PR-FL" and group.seeds == "0, 1, 2" and not group.again
    text = tables.differences([group])
    assert re.findall(r'<span>|<th scope="row">([^<]*)</th>', text)[1:] == [
        "checkpoint.every_s", "data.dir", "engine.devices", "engine.group", "seed",
    ]  # fmt: skip
    assert "<td>0, 1, 2</td>" in text


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"local.lr": 0.1}, "local.lr=0.1"),
        ({"eval.model": "fedavg"}, "eval.model=fedavg"),
        ({"rounds": 7}, "rounds=7"),
        ({"clients.flop_s": [1e9]}, "clients.flop_s=[1000000000.0]"),
        ({"data.alpha": 0.5}, "data.alpha=0.5"),
        ({"window.dt_s": 3.0, "local.lr": 0.1, "local.steps": 2, "eval.batch_size": 3}, "local.steps=2, local.lr=0.1, "
         "window.dt_s=3, 1 more"),
    ],
)  # fmt: skip
def test_other_settings_keep_runs_apart_and_name_them(changes, name, tmp_path):
    for seed in (0, 1):
        make(tmp_path, f"a{seed}", seed=seed)
        make(tmp_path, f"b{seed}", seed=seed, changes=changes)
        make(tmp_path, f"c{seed}", "fedavg", seed=seed, changes=changes)
    found = groups_of(tmp_path)
    assert [len(group.runs) for group in found] == [2, 2, 2]
    assert found[1].name == f"PR-FL ({name})" and found[0].name.startswith("PR-FL (") and found[2].name == "FedAvg"
    assert found[0].colour == found[1].colour != found[2].colour and found[0].dash != found[1].dash


def test_names_that_would_be_alike_are_told_apart(tmp_path):
    for number in range(3):
        make(tmp_path, str(number), changes={"model.name": "x" * 60 + str(number) + "y" * 60 + ".py:Net"})
    names = [group.name for group in groups_of(tmp_path)]
    assert len(set(names)) == 3 and all(len(name) < 80 for name in names)


def test_a_seed_that_is_there_twice_counts_once(tmp_path):
    """The longest run of a seed counts, here the second; a copy of it is no second seed."""
    make(tmp_path / "stopped", "r0", seed=0, windows=12)
    whole = make(tmp_path / "whole", "r0", seed=0)
    make(tmp_path / "copy", "r0", seed=0)
    other = make(tmp_path / "whole", "r1", seed=1)
    (group,) = groups_of(tmp_path)
    assert group.seeds == "0, 1" and len(group.again) == 2
    assert [run.report["simulated_s"] for run in group.runs] == [whole["simulated_s"], other["simulated_s"]]
    text = tables.times([group])
    mean = statistics.fmean([whole["final"]["accuracy"], other["final"]["accuracy"]])
    assert f"{100 * mean:.1f} %" in text and text.count("again: not in the mean") == 2 and "2 seeds" in text


def test_compared_runs_are_as_long_as_those_and_count_once(tmp_path):
    """`compare` sets each run's horizon to where its own run ended; that is no setting of the method."""
    for seed in (0, 1, 2):
        report = make(tmp_path, "unused", "fedavg", seed=seed, changes={"horizon_s": 500.0 + seed, "rounds": 10**9})
        folder = tmp_path / f"seed{seed}" / "compare" / "fedavg"
        folder.mkdir(parents=True)
        write_report(folder / "report.json", report)
    (tmp_path / "unused.json").unlink()
    (group,) = groups_of(tmp_path)
    assert group.seeds == "0, 1, 2" and group.name == "FedAvg"


def test_data_sets_have_sections_of_their_own(tmp_path):
    for seed in (0, 1):
        for strategy in ("prfl", "fedavg"):
            make(tmp_path / "a", f"{strategy}{seed}", strategy, seed)
            make(tmp_path / "b", f"{strategy}{seed}", strategy, seed, {"data.partition": "iid"})
    found = groups_of(tmp_path)
    assert [(g.name, g.task) for g in found] == [
        (name, f"mnist_embedded ({part})") for part in ("dirichlet", "iid") for name in ("PR-FL", "FedAvg")
    ]  # fmt: skip
    assert [g.colour for g in found[:2]] == [g.colour for g in found[2:]]
    page = tmp_path / "page.html"
    write_page(find_runs([str(tmp_path)]), page)
    text = page.read_text()
    assert all(f'<div id="{name}">' in text for name in ("headline", "headline-1", "traffic", "traffic-1"))


@pytest.mark.parametrize(("strategy", "number"), [("prfl", 24), (None, 14), ("both", 20)])
def test_every_group_has_a_style_of_its_own(strategy, number, tmp_path):
    for k in range(number):
        chosen = METHODS[k % len(METHODS)] if strategy is None else ("prfl", "fedavg")[k % 2 * (strategy == "both")]
        make(tmp_path, f"{k:02d}", chosen, changes={"local.lr": 0.01 * (k + 1)}, windows=2)
    found = groups_of(tmp_path)
    assert len({(group.colour, group.dash) for group in found}) == len(found) == number


# --- means, bands, rows ---


def test_the_mean_and_its_band_against_the_obvious_ones(tmp_path):
    """Three seeds, one of which ends early: where all have a point, and not a second further."""
    reports = [make(tmp_path, str(seed), seed=seed, windows=windows) for seed, windows in ((0, 60), (1, 60), (2, 25))]
    (group,) = groups_of(tmp_path)
    figure = figures.headline([group])
    curves = [report["curves"]["mask"] for report in reports]
    want = {}
    for t_s in curves[0]["t_s"]:
        there = [curve["accuracy"][curve["t_s"].index(t_s)] for curve in curves if t_s in curve["t_s"]]
        if len(there) == 3:
            want[t_s] = (sum(there) / 3, min(there), max(there))
    (line,), (band,) = line_of(figure, group), line_of(figure, group, "band")
    assert list(line.x) == list(want) and line.x[-1] == curves[2]["t_s"][-1] < curves[0]["t_s"][-1]
    np.testing.assert_allclose(line.y, [mean for mean, _, _ in want.values()], rtol=0, atol=1e-12)
    half = len(want)
    assert list(band.x) == [*want, *reversed(want)]
    assert list(band.y[:half]) == [high for _, _, high in want.values()]
    assert list(band.y[half:]) == [low for _, low, _ in reversed(want.values())]
    runs = line_of(figure, group, "run")
    assert [list(run.y) for run in runs] == [curve["accuracy"] for curve in curves]
    ends = [report["simulated_s"] for report in reports]
    shown = f"after {sum(ends) / 3:,.0f} s ({min(ends):,.0f}–{max(ends):,.0f} s)"  # accuracies of different seconds
    assert shown in tables.times([group])
    assert all(run.visible is False and run.line.color == line.line.color for run in runs)


def test_along_other_axes_nothing_is_read_beyond_a_curve(tmp_path):
    """Over windows and bytes the seeds' points lie elsewhere: straight lines between them, by hand."""
    reports = [make(tmp_path, str(seed), seed=seed, windows=windows) for seed, windows in ((0, 60), (1, 30))]
    (group,) = groups_of(tmp_path)
    figure = figures.headline([group])
    buttons = {button["label"]: button["args"][0] for button in figure.layout.updatemenus[0].buttons}
    assert list(buttons) == ["simulated time", "windows", "bytes"]
    (place,) = [k for k, trace in enumerate(figure.data) if trace.meta["part"] == "line"]
    for axis, along in (
        ("windows", lambda c: c["window"]),
        ("bytes", lambda c: [(up + down) / 1e9 for up, down in zip(c["bytes_up"], c["bytes_down"], strict=True)]),
    ):
        curves = [(along(r["curves"]["mask"]), r["curves"]["mask"]["accuracy"]) for r in reports]
        xs, ys = buttons[axis]["x"][place], buttons[axis]["y"][place]
        assert min(xs) == max(min(x) for x, _ in curves) and max(xs) == min(max(x) for x, _ in curves)
        for x, y in zip(xs, ys, strict=True):
            values = []
            for own, accuracies in curves:
                last = max(k for k, known in enumerate(own) if known <= x)
                if own[last] == x:
                    values.append(accuracies[last])
                else:
                    share = (x - own[last]) / (own[last + 1] - own[last])
                    values.append(accuracies[last] + share * (accuracies[last + 1] - accuracies[last]))
            assert y == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_spreads_of_what_is_not_there():
    assert spread_on_grid([([0, 1, 2], [0.1, None, 0.3]), ([0, 1, 4], [0.3, 0.5, 0.7])]) == ([0], [0.2], [0.1], [0.3])
    assert spread_along([([None], [None]), ([1, 2], [0.1, 0.2])]) == ([], [], [], [])
    assert spread_along([([0, 1], [0.0, 1.0]), ([5, 6], [0.1, 0.2])]) == ([], [], [], [])  # they never meet
    xs, mean, low, high = spread_along([([0, 0, 2], [0.0, 0.5, 1.0]), ([1, 2], [0.25, 1.0])])
    assert (xs, mean, low, high) == ([1, 2], [0.5, 1.0], [0.25, 1.0], [0.75, 1.0])
    assert Spread.of([]).text(str) == "-" and Spread.of([None, None]).text(str, "never") == "never"
    assert Spread.of([900.0, None, 1000.0]).text(seconds_text) == "950 s (900–1,000 s; 2 of 3)"
    assert Spread.of([900.0, 900.0]).text(seconds_text) == "900 s" == Spread.of([900.0]).text(seconds_text)
    assert Spread.of([900.2, 900.4]).text(seconds_text) == "900 s"


def test_a_row_a_method_with_its_spread_and_how_many_reached_it(tmp_path):
    """Seed 2 never reaches 90 %; a run whose loss was not finite has no accuracy at the end."""
    reports = [make(tmp_path, str(s), seed=s, windows=300, best=b) for s, b in ((0, 0.953), (1, 0.94), (2, 0.85))]
    broken = copy.deepcopy(reports[0]) | {"seed": 3, "peak_memory_mb": None}
    broken["final"] = dict.fromkeys(broken["final"]) | {"model": "mask"}
    broken["time_to_accuracy"] = dict.fromkeys(broken["time_to_accuracy"])
    broken["ended"] = {"how": "not_finite", "detail": "the loss is nan", "client": 1, "window": 9}
    write_report(tmp_path / "3.json", broken)
    (group,) = groups_of(tmp_path)
    text = tables.times([group])
    first = text[text.index("<tbody>") : text.index('class="single"')]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", first)
    times = [r["time_to_accuracy"]["0.9"] for r in reports]
    assert times[2] is None and times[0] != times[1]
    low, high = sorted(times[:2])
    assert cells[-3] == f"{(low + high) / 2:,.0f} s ({low:,.0f}–{high:,.0f} s; 2 of 4)"
    shares = [100 * r["final"]["accuracy"] for r in reports]
    ends = f"{min(shares):.1f}–{max(shares):.1f} %"
    assert cells[-2] == f"{sum(shares) / 3:.1f} % ({ends}; 3 of 4)" and cells[-1] == "MaskFedAvg model"
    assert text.count('<tr class="single" data-group="0"') == 4 and text.count("<tr>") == 2
    said = tables.ends([group])
    assert "3 x rounds; 1 x not_finite: the loss is nan" in said and "3 of 4" in said


# --- in a browser ---


def opened(browser, page, width=1300):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.get("about:blank")
    browser.get(page.as_uri())
    wait_until(lambda: browser.execute_script("return document.body.dataset.drawn") == "yes")


def texts(browser, selector):
    """(text, left, top, right, bottom) of each element."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => { const r = e.getBoundingClientRect();"
        "return [e.textContent, r.left, r.top, r.right, r.bottom]; })", selector,
    )  # fmt: skip


def overlap(one, other, slack=1.5):
    """Whether two boxes of `texts` cover one another by more than `slack` pixels both ways."""
    across = min(one[3], other[3]) - max(one[1], other[1])
    down = min(one[4], other[4]) - max(one[2], other[2])
    return across > slack and down > slack


SHOWN = (
    "return document.getElementById('headline').data.filter(t => t.meta.part === arguments[0] && (t.visible ?? true))"
    ".map(t => [t.meta.group, t.line ? t.line.color : t.fillcolor, t.line ? t.line.dash : ''])"
)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """44 runs: 15 methods of three seeds each, less one run; one method of a long name."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(15):
        strategy = METHODS[number % len(METHODS)]
        for seed in range(3):
            if (number, seed) != (14, 2):
                long = {"model.name": "some/where/a_rather_long_file_name_of_mine.py:Network"}
                changes = long if number == 14 else {}
                make(folder, f"{number:02d}_{seed}", strategy, seed, changes, best=0.95 - 0.01 * number)
    return folder


def test_44_runs_are_15_lines_and_single_runs_come_on_demand(many, tmp_path, browser):
    page = tmp_path / "page.html"
    runs = find_runs([str(many)])
    assert len(runs) == 44
    write_page(runs, page, "Many")
    groups = group_runs(runs)
    opened(browser, page)
    ms = browser.execute_script("return performance.now()")
    print(f"opened in {ms / 1e3:.2f} s, {page.stat().st_size / 1e6:.1f} MB")
    assert page.stat().st_size < 8e6  # of which Plotly is 4.8e6
    lines = browser.execute_script(SHOWN, "line")
    assert len(lines) == 15 == len(groups) and browser.execute_script(SHOWN, "run") == []
    assert len(browser.execute_script(SHOWN, "band")) == 15
    assert len(browser.find_elements("css selector", "#headline .legendtoggle")) == 15
    assert len({(colour, dash) for _, colour, dash in lines}) == 15

    # a method has one colour: its line, its bars, its swatches
    for number, colour, _ in lines:
        assert colour == groups[number].colour
    bars = browser.execute_script("return document.getElementById('traffic').data.map(t => t.marker.color)")
    assert bars == [[group.colour for group in groups]] * 3
    for table in browser.find_elements("css selector", "table"):
        own = [s.get_attribute("stroke") for s in table.find_elements("css selector", "tr:not(.single) .swatch line")]
        assert own == [group.colour for group in groups]

    # single runs: of one method by its button, of all by the switch
    def single_rows():
        return len([row for row in browser.find_elements("css selector", "table tr.single") if row.is_displayed()])

    assert single_rows() == 0
    button = browser.find_element("css selector", "button[data-group='3']")
    browser.execute_script("arguments[0].click()", button)
    wait_until(lambda: len(browser.execute_script(SHOWN, "run")) == 3)
    own = browser.execute_script(SHOWN, "run")
    assert {(number, colour) for number, colour, _ in own} == {(3, groups[3].colour)}
    rows = browser.find_elements("css selector", "tr.single:not([hidden])")
    assert {row.get_attribute("data-group") for row in rows} == {"3"}
    assert single_rows() == 6  # in two tables; the numbers of bytes are folded away
    browser.execute_script("arguments[0].click()", button)
    wait_until(lambda: browser.execute_script(SHOWN, "run") == [])
    browser.execute_script("document.getElementById('single').click()")
    wait_until(lambda: len(browser.execute_script(SHOWN, "run")) == 44)
    browser.execute_script("document.getElementById('single').click()")
    wait_until(lambda: browser.execute_script(SHOWN, "run") == [])

    # a click on the legend takes a method's line and band away together; its runs do not come back with it
    browser.find_elements("css selector", "#headline .legendtoggle")[2].click()
    hidden = "return document.getElementById('headline').data.filter(t => t.visible === 'legendonly').map(t => t.meta)"
    wait_until(lambda: len(browser.execute_script(hidden)) == 2)
    assert browser.execute_script(hidden) == [{"group": 2, "part": part} for part in ("band", "line")]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0  # nothing is fetched
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize("width", [1300, 700, 400])
def test_names_are_readable_on_wide_and_narrow_screens(width, many, tmp_path, browser):
    page = tmp_path / "page.html"
    write_page(find_runs([str(many)]), page)
    opened(browser, page, width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # tables scroll, not the page
    labels = texts(browser, "#traffic .ytick text")
    assert len(labels) == 15 and all(label[1] >= 0 and label[3] <= width for label in labels)
    legend = texts(browser, "#headline .legendtext")
    assert len(legend) == 15 and all(entry[1] >= 0 and entry[3] <= width + 1 for entry in legend)
    for found in (labels, legend):
        assert not [(a[0], b[0]) for k, a in enumerate(found) for b in found[:k] if overlap(a, b)]
    plot = texts(browser, "#headline .nsewdrag")[0]
    assert plot[3] - plot[1] > 0.5 * width and plot[4] - plot[2] > 200  # room is left for the curves


def test_the_papers_runs(tmp_path, browser):
    """The reports that are committed: a line for each method and data set, found here by their files' names."""
    folder = ROOT / "results" / "cpu" / "runs"
    files = sorted(folder.rglob("*.json"))
    methods = {(file.parent.name, file.stem.rpartition("_seed")[0]) for file in files}
    page = tmp_path / "page.html"
    write_page(find_runs([str(folder)]), page)
    opened(browser, page)
    lines = browser.execute_script(
        "return [...document.querySelectorAll('[id^=headline]')].map(e => e.data.filter(t => t.meta.part === 'line' && "
        "(t.visible ?? true)).map(t => [t.name, t.line.color, t.line.dash]))"
    )
    assert sum(map(len, lines)) == len(methods) < len(files)
    styles = {}
    for name, *style in sum(lines, []):
        assert styles.setdefault(name, style) == style  # in every section
    for part, place in enumerate(lines):
        assert len({tuple(style) for _, *style in place}) == len(place), part
    shown = json.loads(re.search(r'id="figures">(.*?)</script>', page.read_text()).group(1).replace("<\\/", "</"))
    assert len(shown["runs"]) == len(files)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
