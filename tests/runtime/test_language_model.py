"""A run whose metric is perplexity: records, density decisions, resume, what is printed at the end."""

from __future__ import annotations

import json
import math
from unittest import mock

import numpy as np
import pytest
import tiny
import tokens

from prfl_jax.report import load_schema
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.records import final_record
from prfl_jax.runtime.training import Variants, train
from prfl_jax.system.signals import Interrupted
from prfl_jax.tasks import CLASSIFICATION, find_task

jsonschema = pytest.importorskip("jsonschema")
NAMES = ("perplexity", "accuracy")
# Perplexities fall by about one in an interval, so that a client whose fall is below 1 recovers at once.
CHANGES = {"rounds": 18, "density__min_delta": 1.0, "local__lr": 1.0}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tokens.write(tmp_path_factory.mktemp("data"))


def config(file, strategy="prfl", **changes):
    return tiny.config(strategy, **{**tokens.SETTINGS, "data__name": file, "eval__thresholds": (11.0, 6.0), **changes})


@pytest.fixture(scope="module")
def ran(file):
    return tiny.run_experiment(Experiment(config(file, **CHANGES)))


def test_perplexity_is_in_records_and_report(ran):
    jsonschema.Draft202012Validator(load_schema()).validate(ran.report)
    for record in [*ran.of("eval"), *ran.of("final")]:
        for name in ("mask", "fedavg"):
            assert record[name]["perplexity"] == pytest.approx(math.exp(record[name]["loss"]), rel=1e-12)
    (final,) = ran.of("final")
    assert ran.report["final"]["metric"] == final["mask"]["perplexity"] < ran.of("eval")[0]["mask"]["perplexity"]
    assert ran.report["final"]["accuracy"] == final["mask"]["accuracy"]
    assert final["mask"]["per_class"] == final["mask"]["per_client"] == [] and ran.report["worst_client"] is None
    for level, reached in ran.report["time_to_perplexity"].items():
        first = [r["t_s"] for r in ran.of("eval") if r["mask"]["perplexity"] <= float(level)]
        assert reached == (first[0] if first else None)
    assert ran.report["time_to_perplexity"]["11"] is not None


def test_recovery_follows_the_clients_perplexity(ran):
    """Early stopping by hand: an interval without a fall of more than min_delta below the best one fires."""
    best, last = [math.inf] * 4, [None] * 4
    density, fired = np.full(4, 100), 0
    for record in ran.of("interval"):
        assert record["server_perplexity"] > 1 and "client_loss" not in record
        for client, perplexity in enumerate(record["client_perplexity"]):
            fires = False
            if perplexity is not None and perplexity != last[client]:
                last[client] = perplexity
                fires = perplexity >= best[client] - CHANGES["density__min_delta"]
                best[client] = math.inf if fires else perplexity
            assert record["triggered"][client] == (fires and density[client] < 100)
            fired += record["triggered"][client]
        density = record["percents"]
    assert fired >= 2 and any(entry["triggers"] for entry in ran.report["clients"])


def test_a_resumed_run_knows_the_scores(ran, file, tmp_path):
    experiment = Experiment(config(file, **CHANGES))
    with pytest.raises(Interrupted):
        experiment.run(tmp_path, progress=False, guard=tiny.StopAt(9))
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        resumed = tiny.Ran(experiment, experiment.run(tmp_path, progress=False))
    for kind in ("eval", "interval", "final"):
        assert resumed.of(kind) == ran.of(kind)


@pytest.mark.slow
def test_stop_early_ends_where_perplexity_no_longer_falls(file):
    """The accuracy falls between two intervals, which would end the run; the perplexity only falls."""
    changes = {"stop_early": True, "density__patience": 1, "rounds": 24}
    c = config(file, "fedavg", **changes, density__min_delta=0.0, local__lr=0.05)
    ran = tiny.run_experiment(Experiment(c))
    assert ran.report["ended"]["how"] == "rounds" and len(ran.of("interval")) == 8
    perplexity, accuracy = ([record[f"server_{name}"] for record in ran.of("interval")] for name in NAMES)
    assert perplexity == sorted(perplexity, reverse=True) and accuracy != sorted(accuracy)
    c = config(file, "fedavg", **changes, density__min_delta=5.0, local__lr=0.05)
    ran = tiny.run_experiment(Experiment(c))
    assert ran.report["ended"]["how"] == "stop_rule" and ran.report["windows"] == 6


def test_final_records_without_labels():
    task = find_task("language_model")
    scores = mock.Mock(of_clients=(), accuracy=0.25, mean_loss=2.0, per_class=lambda: [0.5, 0.0])
    record = final_record(3, 9.0, {"mask": scores}, [], task)
    assert record["mask"] == {
        "accuracy": 0.25, "loss": 2.0, "perplexity": math.exp(2.0), "per_class": [], "worst_client": None,
        "per_client": [],
    }  # fmt: skip
    assert final_record(3, 9.0, {"mask": scores}, [], CLASSIFICATION)["mask"]["worst_client"] == {
        "client": None, "accuracy": None,
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_printed_at_the_end(file, tmp_path, capsys):
    with mock.patch("prfl_jax.runtime.experiment.run_figure"), mock.patch("prfl_jax.report.run_figure") as figure:
        c = config(file, "fedavg", rounds=4, compare=("fedbuff",))
        assert train(c, "x.py", str(tmp_path / "one")) == 0
        said = capsys.readouterr().out
        two = config(file, "fedavg", rounds=4, eval__thresholds=(12.0, 6.0))
        assert train(two, "x.py", str(tmp_path / "two"), variants=Variants(seeds=2)) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("seed")}
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    entry = report["compare"]["fedbuff"]
    other = json.loads((tmp_path / "one" / "compare" / "fedbuff" / "report.json").read_text())
    assert entry["final_perplexity"] == other["final"]["perplexity"]
    assert "Test perplexity" in said and f"{report['final']['perplexity']:.4g}" in said and "FedBuff" in said
    assert figure.called
    for seed in (0, 1):
        end = json.loads((tmp_path / "two" / f"seed{seed}" / "report.json").read_text())["final"]["perplexity"]
        assert f"{end:.4g}" in lines[f"seed{seed}"] and "12 after" in lines[f"seed{seed}"]
        assert "%" not in lines[f"seed{seed}"]
