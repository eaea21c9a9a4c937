"""The report of masks that are chosen during a run, against sums made by hand; its keys in the schema; its summary."""

from __future__ import annotations

import copy
import re
from unittest import mock

import jsonschema
import numpy as np
import pytest
from report_records import report_of, simulated_run

from prfl_jax.report import load_schema, run_figure, summary_text, write_report
from prfl_jax.report.html import figures, find_runs, group_runs, tables

WINDOWS = ((10.0, 300, 100), (20.0, 200, 80), (30.0, 100, 60), (40.0, 90, 50))  # end in s, bytes up and down


def windows():
    start_s = 0.0
    for window, (end_s, up, down) in enumerate(WINDOWS, start=1):
        yield {
            "kind": "window", "window": window, "start_s": start_s, "end_s": end_s, "arrivals": [0, 1],
            "staleness": [0, 0], "round_s": [7.0, 9.0], "loss": [0.7, 0.6], "bytes_up": up, "bytes_down": down,
            "bytes_client_down": 2 * down, "waiting_s": [3.0, 1.0], "percents": [100, 100],
        }  # fmt: skip
        start_s = end_s


def change(window, stage, server, clients, over, server_bytes=1536):
    return {
        "kind": "masks", "window": window, "t_s": WINDOWS[window - 1][0], "stage": stage, "server": server,
        "clients": clients, "changed": True, "server_bytes": server_bytes, "initial_over": over,
    }  # fmt: skip


def scores(accuracy):
    per_client = [accuracy, accuracy]
    worst = {"client": 0, "accuracy": accuracy}
    return {"accuracy": accuracy, "loss": 0.5, "per_class": [accuracy], "per_client": per_client, "worst_client": worst}


def run(changes, own=True):
    """Two clients, four windows, with a change of the masks after some of them."""
    for record in windows():
        yield record
        yield from (one for one in changes if one["window"] == record["window"])
    final = {"kind": "final", "window": 4, "t_s": 40.0, "mask": scores(0.6), "fedavg": scores(0.6)}
    if own:
        worst = {"client": 1, "accuracy": 0.7}
        final["own_models"] = {"per_client": [0.9, 0.7], "mean": 0.85, "worst_client": worst}
    yield final
    yield {"kind": "end", "how": "rounds", "detail": None, "client": None, "window": 4}


CHANGES = (
    change(1, "initial", 0.5, [0.5, 0.5], over=False),
    change(2, "initial", 0.25, [0.25, 0.25], over=True),
    change(4, "adaptive", 0.125, [0.375, 0.0625], over=True, server_bytes=2560),
)


@pytest.fixture(scope="module")
def report():
    return report_of(run(CHANGES), 2)


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(load_schema())


def test_retentions_and_the_initial_stage_add_up_by_hand(report, validator):
    validator.validate(report)
    assert report["masks"] == {
        "retention": 0.125,
        "server_bytes": 2560,
        "server_kib": 2.5,
        "curve": {
            "t_s": [10.0, 20.0, 40.0],
            "window": [1, 2, 4],
            "server": [0.5, 0.25, 0.125],
            "clients_mean": [0.5, 0.25, 0.21875],
            "clients_min": [0.5, 0.25, 0.0625],
            "clients_max": [0.5, 0.25, 0.375],
        },
        "initial": {
            "rounds": 2, "ended": True, "t_s": 20.0, "retention": 0.25,
            "bytes_up": 500, "bytes_down": 180, "bytes_client_down": 360,
        },
        "file": "masks.npz",
    }  # fmt: skip
    assert [entry["retention"] for entry in report["clients"]] == [0.375, 0.0625]


def test_own_models_stand_beside_the_servers(report):
    assert report["own_models"] == {"accuracy_mean": 0.85, "worst_client": {"client": 1, "accuracy": 0.7}}
    assert [entry["own_accuracy"] for entry in report["clients"]] == [0.9, 0.7]
    assert [entry["accuracy"] for entry in report["clients"]] == [0.6, 0.6]


def test_an_initial_stage_that_goes_on_at_the_end_says_so(validator):
    report = report_of(run(CHANGES[:1]), 2)
    validator.validate(report)
    initial = report["masks"]["initial"]
    assert (initial["rounds"], initial["ended"], initial["t_s"], initial["bytes_up"]) == (1, False, 10.0, 300)
    lines = summary_text(report).replace("\n    ", " ").splitlines()  # a long line is wrapped
    assert any(line.endswith("50.0 % to 50.0 %; initial rounds: 1, 10 s, not ended") for line in lines)


def test_masks_without_initial_stage_or_own_models(validator):
    report = report_of(run(CHANGES[2:], own=False), 2)
    validator.validate(report)
    assert report["masks"]["initial"] is None and "own_models" not in report
    assert "retention" in report["clients"][0] and "own_accuracy" not in report["clients"][0]


def test_other_runs_have_none_of_these_keys():
    report = report_of(simulated_run(windows=40), 10)
    assert not {"masks", "own_models"} & report.keys()
    assert not {"retention", "own_accuracy"} & report["clients"][0].keys()


def test_long_curves_and_many_clients_are_thinned(validator):
    clients, count = 1500, 2500
    changes = [{**CHANGES[2], "window": 4, "t_s": float(k), "clients": [k / count] * clients} for k in range(count)]
    report = report_of(run(changes, own=False), clients)
    validator.validate(report)
    curve = report["masks"]["curve"]
    assert curve["t_s"][0] == 0.0 and curve["t_s"][-1] == count - 1 and len(curve["t_s"]) < 1002
    assert {len(values) for values in curve.values()} == {len(curve["t_s"])}
    assert len(report["clients"]) < 1002
    assert {entry["retention"] for entry in report["clients"]} == {(count - 1) / count}


def paths(report):
    """Each key of the new parts, to be removed."""
    masks = report["masks"]
    for parent, part in ((("masks",), masks), (("own_models",), report["own_models"])):
        yield from ((*parent, key) for key in part)
    yield from (("masks", part, key) for part in ("curve", "initial") for key in masks[part])
    yield from (("own_models", "worst_client", key) for key in ("accuracy", "client"))


def test_the_schema_wants_each_key_and_no_other(report, validator):
    changed = 0
    for path in paths(report):
        for rename in (False, True):
            other = copy.deepcopy(report)
            part = other
            for key in path[:-1]:
                part = part[key]
            value = part.pop(path[-1]) if not rename else part[path[-1]]
            if rename:
                part[f"{path[-1]}_too"] = value
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(other)
            changed += 1
    assert changed == 2 * (6 + 2 + 6 + 7 + 2)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("masks", "retention"), 1.5),
        (("masks", "retention"), None),
        (("masks", "server_bytes"), 2.5),
        (("masks", "curve", "window"), [-1]),
        (("masks", "initial", "rounds"), 0),
        (("own_models", "accuracy_mean"), 85),
        (("own_models", "worst_client"), None),
        (("clients", 0, "retention"), -0.1),
        (("clients", 0, "own_accuracy"), "90 %"),
    ],
)
def test_the_schema_refuses(report, validator, path, value):
    other = copy.deepcopy(report)
    part = other
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(other)


def test_the_summary_has_a_line_for_masks_and_one_for_own_models(report):
    lines = summary_text(report).splitlines()
    masks = "  The server's mask keeps 12.5 % (2 KiB), clients' 6.2 % to 37.5 %; initial rounds: 2, 20 s"
    assert masks in lines and not any("No client was pruned" in line for line in lines)
    assert "  Accuracy of the clients' own models: 85.0 % on average, worst client 1 at 70.0 %" in lines
    without = summary_text(report_of(run(CHANGES[2:], own=False), 2))
    assert "6.2 % to 37.5 %\n" in without and "own models" not in without


HELD = ([0, 10, 20, 40, 40], [1, 0.5, 0.25, 0.125, 0.125])  # of the server, with begin and end of the run


def test_the_figure_shows_what_masks_hold(report, tmp_path):
    """Of clients the mean in a band, where their masks are their own; in a comparison those of the first run."""
    alone = report_of(run([{**one, "clients": [one["server"]] * 2} for one in CHANGES], own=False), 2)
    other = report_of(simulated_run(clients=2, windows=10), 2)
    for reports, lines, label in (
        ([report, other], ["server's mask", "clients' own masks, mean"], "share of the model kept"),
        ([alone], ["server's mask"], "share of the model kept"),
        ([other, report], ["0", "1"], "density of each client"),
    ):
        with mock.patch("matplotlib.figure.Figure.savefig", autospec=True) as saved:
            saved.side_effect = lambda figure, part, **how: part.write_bytes(b"")
            run_figure(reports, tmp_path / "figure.png")
        axes = saved.call_args.args[0].axes[1]
        drawn = {line.get_label(): line for line in axes.get_lines()}
        assert list(drawn)[:2] == lines and axes.get_ylabel() == label
        if reports[0] is other:
            continue
        server = drawn["server's mask"]
        assert server.get_drawstyle() == "steps-post" and tuple(map(list, server.get_data())) == HELD
        assert len(axes.collections) == len(lines) - 1
        if reports[0] is report:
            assert list(drawn[lines[1]].get_ydata()) == [1, 0.5, 0.25, 0.21875, 0.21875]
            band = axes.collections[0].get_paths()[0].vertices
            assert {tuple(corner) for corner in np.round(band, 4)} >= {(40, 0.0625), (40, 0.375), (0, 1), (10, 0.5)}


def test_the_page_says_what_masks_hold_where_there_are_any(report, tmp_path):
    snip = report_of(run([change(1, "adaptive", 0.125, [0.125] * 2, over=True)], own=False), 2)
    others = [report_of(simulated_run(clients=2, windows=10), 2), snip]
    for name, method, made in zip("abc", ("layerwise", "fedavg", "snip"), (report, *others), strict=True):
        write_report(tmp_path / f"{name}.json", made | {"strategy": method})
    groups = {group.runs[0].report["strategy"]: group for group in group_runs(find_runs([str(tmp_path)]))}
    text = tables.times([groups[method] for method in ("layerwise", "fedavg", "snip")])
    names = ["server's mask keeps", "its size", "initial rounds", "their time", "own masks keep, mean"]
    head = re.findall(r"<th>([^<]*)</th>", text.replace("&#x27;", "'"))
    assert head[-6:] == [*names, "own model, mean"]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row)[-6:] for row in text.split("<tr>")[2:]]
    assert rows == [
        ["12.5 %", "2 KiB", "2", "20 s", "21.9 %", "85.0 %"], ["-"] * 6, ["12.5 %", "2 KiB", "-", "-", "-", "-"]
    ]  # fmt: skip
    assert "mask" not in tables.times([groups["fedavg"]]).replace("MaskFedAvg", "")
    drawn = {trace.name: trace for trace in figures.densities(groups["layerwise"].runs[0]).data}
    server = drawn["server's mask"]
    assert (list(server.x), list(server.y)) == (HELD[0], [100 * share for share in HELD[1]])
    assert list(drawn["clients' own masks, least to most"].y) == [100, 50, 25, 37.5, 37.5]
    assert len(figures.densities(groups["snip"].runs[0]).data) == 1
