"""The suite `intervals` at its small size."""

import json

import pytest

from prfl_jax.benchmarks.suite import Request, run_suite
from prfl_jax.runtime import loop


def test_rows_file_and_table(tmp_path, monkeypatch):
    decided, decide = {}, loop.decide_densities
    monkeypatch.setattr(
        loop, "decide_densities", lambda run: decided.setdefault(run.sim, []).append(run.at.window) or decide(run)
    )
    out = tmp_path / "intervals.json"
    assert run_suite(Request("intervals", str(out), repeats=2, size="small")) == 0
    assert list(decided.values()) == [2 * [1, 2, 3, 4, 5, 6], 2 * [2, 4, 6]]  # the bandit, and the one asked seldom

    rows = {row["decides"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["after every window", "after every 2 windows", "never"]
    for row in rows.values():
        assert (row["clients"], row["windows"], row["seed"], len(row["runs"])) == (10, 4, 0, 2)
        for k, together in enumerate(row["runs"]):
            assert sum(part["runs"][k] for part in row["parts"].values()) == pytest.approx(together)
        spends = {purpose for purpose, part in row["parts"].items() if part["min"] > 0}
        assert row["parts"].keys() - spends == ({"decide", "prune"} if row["decides"] == "never" else set())
        assert row["more_s_min"] <= row["more_s"] <= row["more_s_max"] and row["wall_s"] > 0
    assert (rows["after every 2 windows"]["ratio"], rows["after every 2 windows"]["more_s"]) == (1.0, 0.0)
    assert "| 10 clients, decisions after every window |" in out.with_suffix(".md").read_text()
