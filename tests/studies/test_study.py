"""What a study can be asked for, and the part of its material that one table shows."""

import pytest
from study_reports import material

from prfl_jax.studies.columns import Column
from prfl_jax.studies.study import Product, Study, find_study
from prfl_jax.system.errors import UserError


def column(key, *methods):
    return Column(key, key, lambda c: None, (0.5,), "why", None, methods)


def test_products_ask_for_their_methods_in_the_columns_order():
    columns = [column("a", "x", "y", "z"), column("b", "z")]
    study = Study(
        "s",
        {
            "one": Product(print, lambda one, every: ("z", "x") if len(every) == 2 else ()),
            "two": Product(print, lambda one, every: ("y",)),
            "clock": Product(print, from_runs=False),
        },
        {},
    )
    assert study.chosen("all") == ["one", "two", "clock"] and study.chosen("two") == ["two"]
    assert study.methods_for(["one"], [], columns)(columns[0]) == ["x", "z"]
    assert study.methods_for(["one", "two"], [], columns)(columns[1]) == ["z"]
    assert study.methods_for(["clock"], [], columns)(columns[0]) == []
    assert study.methods_for(["clock"], ["y"], columns)(columns[0]) == ["y"]
    with pytest.raises(UserError, match="--only=w: allowed are x, y, z"):
        study.methods_for(["one"], ["w"], columns)
    with pytest.raises(UserError, match="--what=three: allowed with --paper=s is one of one, two, clock, all"):
        study.chosen("three")


def test_unknown_papers_are_refused():
    with pytest.raises(UserError, match="--paper=fedprox: allowed is one of prfl, fedmp, edge_pruning"):
        find_study("fedprox")


def test_a_part_of_the_material(tmp_path):
    a, b = column("a", "x", "y"), column("b", "x")
    reports = {("a", "x"): [1], ("a", "y"): [2], ("b", "x"): [3]}
    part = material(tmp_path, (a, b), reports, mark="M").of([a], ("y", "w"))
    assert part.reports == {("a", "y"): [2]} and part.preset.mark == "M"
    assert [(c.key, c.methods) for c in part.preset.columns] == [("a", ("y",))]
