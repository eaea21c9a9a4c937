"""What a strategy that a run is compared with takes over of it: all but its row, defence and deadline included."""

import json

import pytest
import tiny

from prfl_jax import strategies
from prfl_jax.config.canonical import flatten, to_dict
from prfl_jax.config.comparison import compared, not_taken_over
from prfl_jax.config.validate import validate
from prfl_jax.runtime.training import train
from prfl_jax.submodel import SUBMODELS

ROW_KEYS = tuple(strategies.row("prfl"))


def other(config, name):
    """The config that is run, and what it lacks."""
    validate(config)
    found = compared(config, name, validate)
    validate(found.config)
    return found


@pytest.mark.parametrize("own", strategies.ROWS)
def test_an_unchanged_row_is_compared_with_unchanged_rows(own):
    config = tiny.config(own)
    for name in strategies.ROWS:
        if SUBMODELS.find(strategies.METHODS[name].submodel).known_networks:  # of the built-in networks only
            continue
        found = other(config, name)
        assert found.lacks == ()
        assert {key: flatten(found.config)[key] for key in ROW_KEYS} == strategies.row(name)


def test_groups_that_no_row_sets_are_taken_over_whole():
    changes = {
        "attack.name": "sign_flip", "attack.number": 1, "attack.scale": 3.0, "aggregation.clip_norm": 2.0,
        "privacy.noise_multiplier": 0.5, "eval.signal": "test", "faults.dropout": 0.1, "faults.crash": 0.2,
        "clients.flop_s": (1e6,), "window.cohort": 0, "window.deadline_share": 0.5, "window.deadline_factor": 2.0,
    }  # fmt: skip
    config = tiny.config("fedavg", **{key.replace(".", "__"): value for key, value in changes.items()})
    for name in ("fedasync", "fedbuff", "prfl", "fedfix"):
        found = other(config, name)
        assert found.lacks == ()
        before, after = flatten(config), flatten(found.config)
        differ = {key for key in before if before[key] != after[key]}
        assert differ <= {*ROW_KEYS, "strategy"}


@pytest.mark.parametrize("defence", ["median", "trimmed_mean", "krum", "multi_krum"])
@pytest.mark.parametrize("name", ["prfl", "prfl_norecover", "prfl_syn", "prfl_nores"])
def test_a_defence_takes_the_place_of_a_mean(defence, name):
    change = dict(aggregation__name=defence, aggregation__byzantine=0, submodel__importance="weight")
    found = other(tiny.config("fedavg", **change), name)
    assert found.lacks == () and found.config.aggregation.name == defence
    assert found.config.window.close == strategies.row(name)["window.close"]


@pytest.mark.parametrize("name", ["prfl_fedavg", "prfl_nobuff"])
def test_an_ablation_keeps_the_aggregation_that_it_is_about(name):
    """Else it would be PR-FL with this defence, under another name."""
    config = tiny.config("fedavg", aggregation__name="median", aggregation__byzantine=0, submodel__importance="weight")
    found, own = other(config, name), strategies.row(name)["aggregation.name"]
    assert found.config.aggregation.name == own
    assert found.lacks == (f"aggregation.name='median' (its own, {own}, is all that sets it apart from prfl)",)


@pytest.mark.parametrize("close", ["fixed", "k_arrivals"])
def test_an_ablation_keeps_the_windows_that_it_is_about(close):
    config = tiny.config("fedavg", window__close=close, window__k=2)
    found = other(config, "prfl_syn")
    like_prfl = (f"window.close={close!r} (its own, all, is all that sets it apart from prfl)",)
    assert found.lacks == (like_prfl if close == "fixed" else ())
    assert found.config.window.close == ("all" if close == "fixed" else close)


def test_rows_that_are_compared_differ_in_more_than_their_names():
    config = tiny.config("fedavg", aggregation__name="median", aggregation__byzantine=0, submodel__importance="weight")
    known = [name for name, row in strategies.METHODS.items() if SUBMODELS.find(row.submodel).known_networks]
    names = [name for name in strategies.METHODS if name not in known and name != "fedavg"]
    flats = [{k: v for k, v in flatten(other(config, name).config).items() if k != "strategy"} for name in names]
    assert all(a != b for i, a in enumerate(flats) for b in flats[:i])


@pytest.mark.parametrize("name", ["fedasyn", "fedasync", "fedfix", "fedbuff"])
def test_a_defence_cannot_take_the_place_of_what_is_no_mean(name):
    config = tiny.config("fedavg", aggregation__name="median", aggregation__byzantine=0, compare=("fedasyn",))
    found = other(config, name)
    own = strategies.row(name)["aggregation.name"]
    assert found.config.aggregation.name == own
    assert found.lacks == (f"aggregation.name='median' (its own, {own}, is no weighted mean of models)",)


def test_a_forbidden_defence_is_left_out_with_the_reason():
    config = tiny.config("fedavg", aggregation__name="median", aggregation__byzantine=1)
    found = other(config, "prfl")  # which prunes by squared updates
    assert found.config.aggregation.name == "buffered_maskfedavg"
    assert len(found.lacks) == 1
    assert "config.submodel.importance='server_sq_grad': allowed is weight" in found.lacks[0]


def test_a_defence_that_would_make_it_the_same_run_is_left_out():
    """The ablation's plain mean is all that sets it apart."""
    change = dict(aggregation__name="median", aggregation__byzantine=0, submodel__importance="weight")
    found = other(tiny.config("prfl", **change), "prfl_fedavg")
    assert found.config.aggregation.name == "buffered_fedavg"
    assert found.lacks == ("aggregation.name='median' (with it this would be the same run again)",)


def test_a_deadline_takes_the_place_of_windows_that_wait():
    config = tiny.config("fedavg", window__close="deadline")
    assert other(config, "prfl_syn").config.window.close == "deadline"
    for name in ("fedasyn", "fedasync", "fedbuff", "prfl"):
        found, own = other(config, name), strategies.row(name)["window.close"]
        assert found.config.window.close == own
        assert found.lacks == (f"window.close='deadline' (its windows, {own}, wait for no client that is late)",)
    ours = tiny.config("prfl", window__close="deadline")  # instead of fixed windows, here and there
    assert other(ours, "prfl_norecover").config.window.close == "deadline"
    assert other(ours, "fedavg").config.window.close == "deadline"


def test_any_other_override_counts_where_both_rows_agree():
    config = tiny.config("prfl", transport__name="unicast", window__first_waits_for_all=False)
    ablation, fedavg = other(config, "prfl_norecover").config, other(config, "fedavg").config
    assert ablation.transport.name == "unicast" and not ablation.window.first_waits_for_all
    assert ablation.density.name == "time_balance"
    assert fedavg.transport.name == "one_copy"  # another choice in its row


def test_the_config_does_not_change_and_what_lacks_is_named():
    config = tiny.config(
        "fedavg", aggregation__name="median", aggregation__byzantine=0, window__close="deadline",
        compare=("fedavg", "fedbuff", "prfl_syn"),
    )  # fmt: skip
    before = to_dict(config)
    lines = not_taken_over(config.lock(), validate)
    assert to_dict(config) == before
    assert len(lines) == 2
    assert lines[0].startswith("config.compare: fedbuff runs without this run's aggregation.name='median' (")
    assert "; window.close='deadline' (" in lines[0]
    assert lines[1].startswith("config.compare: prfl_syn runs without this run's aggregation.name='median' (config.")


@pytest.mark.slow
def test_the_other_run_has_the_defence_and_the_deadline(tmp_path, capsys):
    config = tiny.config(
        "fedavg", rounds=3, aggregation__name="median", aggregation__byzantine=1, window__close="deadline",
        attack__name="sign_flip", attack__number=1, submodel__importance="weight", compare=("prfl_syn", "fedbuff"),
    )  # fmt: skip
    validate(config)
    assert train(config, "cfg.py", str(tmp_path / "run"), dry_run=True) == 0
    line = "config.compare: fedbuff runs without this run's aggregation.name='median' ("
    assert [text.startswith(line) for text in capsys.readouterr().err.splitlines()] == [True]
    assert train(config, "cfg.py", str(tmp_path / "run")) == 0
    assert sum(text.startswith(line) for text in capsys.readouterr().err.splitlines()) == 1
    syn, buff = (
        json.loads((tmp_path / f"run/compare/{name}/config.json").read_text())["config"]
        for name in ("prfl_syn", "fedbuff")
    )
    assert (syn["aggregation"]["name"], syn["window"]["close"]) == ("median", "deadline")
    assert (buff["aggregation"]["name"], buff["window"]["close"]) == ("fedbuff", "k_arrivals")
    for each in (syn, buff):
        assert each["attack"]["name"] == "sign_flip" and each["attack"]["number"] == 1
    entries = json.loads((tmp_path / "run/report.json").read_text())["compare"]
    assert entries["prfl_syn"]["lacks"] == [] and len(entries["fedbuff"]["lacks"]) == 2
