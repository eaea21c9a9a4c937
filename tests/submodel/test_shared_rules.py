"""Rules with one mask of the server for all clients: the keys that they cannot be had with."""

import pytest
import tiny

from prfl_jax.config.validate import validate
from prfl_jax.engine.method import check_compared
from prfl_jax.runtime.batched_runs import join
from prfl_jax.runtime.dry_run import estimate
from prfl_jax.runtime.training import _comparison, train
from prfl_jax.submodel import PruningSettings, pruning_settings
from prfl_jax.submodel.target import ITERATIVE
from prfl_jax.system.errors import UserError

REFUSED = {
    "window.close": ("prunefl", dict(window__close="fixed"), "all or deadline with submodel.name='prunefl'"),
    "rounds": ("iterative", dict(rounds=39, pruning__times=20), "at least 40"),
    "rounds below the last pruning": ("iterative", dict(rounds=500, pruning__rounds=1000), "at least 501"),
    "pruning.rounds": ("iterative", dict(rounds=1_000_000, horizon_s=50.0), "a number with submodel.name='iterative'"),
    "pruning.density": ("snip", dict(pruning__density=0.0), "in (0, 1]"),
    "pruning.times": ("iterative", dict(pruning__times=0), "1"),
    "density.name": ("snip", dict(density__name="time_balance", transport__name="unicast"), "full"),
    "transport.name": ("iterative", dict(transport__name="delta"), "not nested"),
    "transport.upload": ("prunefl", dict(transport__upload="topk"), "whole"),
    "local.name": ("snip", dict(local__name="scaffold"), "sgd or proximal"),
    "engine.train": ("prunefl", dict(engine__train="pending"), "auto or arrival"),
    "pruning.initial_rounds": (
        "conventional",
        dict(privacy__noise_multiplier=1.0, aggregation__clip_norm=1.0),
        "0 with privacy.noise_multiplier=1.0",
    ),
    "privacy.noise_multiplier": (
        "prunefl",
        dict(privacy__noise_multiplier=1.0, aggregation__clip_norm=1.0),
        "0 with submodel.name='prunefl'",
    ),
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_does_not_go_with_a_shared_mask_is_refused(named):
    method, keys, why = REFUSED[named]
    with pytest.raises(UserError) as caught:
        validate(tiny.config(method, **keys))
    text = str(caught.value)
    assert text.startswith(f"config.{named.split()[0]}=") and why in text and "\n" not in text


def test_iterative_pruning_may_end_in_the_last_window():
    """Or nowhere, where a horizon ends the run."""
    for keys in (dict(rounds=501), dict(rounds=3, horizon_s=9.0)):
        validate(tiny.config("iterative", pruning__rounds=1000, **keys))
    assert [w for w in range(1, 1001) if ITERATIVE.mask.due(w, PruningSettings(4, times=2))][-1] == 501


def test_a_run_that_is_compared_counts_the_rounds_of_the_first():
    """It goes on until that one's simulated second, in however many windows."""
    report = {"ended": {"how": "rounds"}, "simulated_s": 9.0}
    other = _comparison(tiny.config("fedavg", rounds=12), report, "iterative")
    assert pruning_settings(other).rounds == 12 and other.rounds > 12
    assert _comparison(tiny.config("fedavg", rounds=12), report, "snip").pruning.rounds is None


def test_a_dry_run_counts_the_gradients_that_are_uploaded():
    """Of four clients, twice in eight windows, as many bytes as the model's; the rest is that of `conventional`."""
    prunefl, conventional = (estimate(tiny.config(method)) for method in ("prunefl", "conventional"))
    assert prunefl.bytes_up - conventional.bytes_up == pytest.approx(2 * 4 * 8_000_000)
    assert prunefl.bytes_down == conventional.bytes_down
    short = [estimate(tiny.config(method, rounds=3)).bytes_up for method in ("prunefl", "conventional")]
    assert short[0] == short[1]  # the first change is after window 4


@pytest.mark.parametrize("method", ["snip", "iterative"])
def test_a_density_without_a_weight_for_each_layer_is_refused(method):
    """Also by a dry run; one of the two layers' 9,528 weights would be 0.0001 of them."""
    for make in (lambda config: tiny.simulation(method, pruning__density=1e-4), estimate):
        with pytest.raises(UserError, match=r"config.pruning.density=0.0001: keeps 1 of the 9,528.*at least 0.00021"):
            make(tiny.config(method, pruning__density=1e-4))


def test_a_density_that_a_compared_method_cannot_have():
    """It is found before anything is trained, though the run itself has no weight that could be pruned."""
    config, model = tiny.config("fedavg", compare=("snip",)), tiny.simulation("fedavg").method.model
    check_compared(config, model)
    config.pruning.density = 1e-4
    for check in (lambda: check_compared(config, model), lambda: train(config, "x.py", None, dry_run=True)):
        with pytest.raises(UserError, match=r"config.compare=.snip. cannot run \(config.pruning.density=.*keeps 1"):
            check()


def test_several_at_once_are_not_compared_with_a_shared_mask():
    """Which is found before they are trained."""
    with pytest.raises(UserError, match="config.compare='snip': allowed with --seeds or --vary is a rule whose masks"):
        join([tiny.config("fedavg", compare=("snip",), seed=seed) for seed in (0, 1)])
