"""Fig. 11: what is measured is the work of a run, and the table says on which machine."""

import numpy as np
import pytest
from study_reports import material, rows_of

from prfl_jax.engine.method import resolve
from prfl_jax.studies.fedmp import overhead
from prfl_jax.submodel.masks import unpack


@pytest.mark.slow
def test_pruning_makes_every_workers_masks():
    percent = np.array([100, 37, 5])
    bits = overhead.pruner(percent, 0.1)()
    size = resolve(overhead.config_of(3, 0.1), (28, 28, 1), 10).size
    for place, (leaf, length) in enumerate(zip(bits, size.layers, strict=True)):
        kept = [int(unpack(own, length).sum()) for own in leaf]
        assert kept == [size.held[p][place] for p in percent]


def test_one_decision_a_worker_and_round(tmp_path, monkeypatch):
    assert len(overhead.decision_s(3, learnt=4, repeats=2)) == 2 and min(overhead.decision_s(2, 1, 1)) > 0
    monkeypatch.setattr(overhead, "WORKERS", (2, 4))
    monkeypatch.setattr(overhead, "decision_s", lambda workers, learnt, repeats: [0.001 * workers] * repeats)
    monkeypatch.setattr(overhead, "pruning_s", lambda workers, repeats: [0.002 * workers, 0.004 * workers])
    overhead.fig11(material(tmp_path, (), {}, mark="A TEST"))
    rows = rows_of(tmp_path / "fig11.csv")
    assert [(r["workers"], r["decision, ms"], r["pruning, ms"], r["both, ms"]) for r in rows] == [
        ("2", "2", "6", "8"), ("4", "4", "12", "16")
    ]  # fmt: skip
    assert "machine: cpu" in (tmp_path / "fig11.md").read_text()
    assert "A TEST" in (tmp_path / "fig11.svg").read_text()
