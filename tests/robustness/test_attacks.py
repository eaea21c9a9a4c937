"""Attacks, the update filter, robust aggregation and the privacy accountant: functions, and whole runs."""

import json
import math
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
import tiny

from prfl_jax.aggregate import Aggregation
from prfl_jax.aggregate.choices import each_once
from prfl_jax.config.schema import RULES
from prfl_jax.config.validate import validate
from prfl_jax.engine.method import make_update_filter
from prfl_jax.report import comparable, load_schema, summary_text
from prfl_jax.robustness import privacy
from prfl_jax.robustness.attacks import ATTACKS, make_attack, malicious_clients
from prfl_jax.robustness.update_filter import ACCEPTED, CLIPPED, REJECTED, UpdateFilter
from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

LAYOUT = Layout.of({"b": jax.ShapeDtypeStruct((3,), jnp.float32), "w": jax.ShapeDtypeStruct((40, 3), jnp.float32)})
SENT = {"b": jnp.array([1.0, 2.0, 3.0]), "w": jnp.where(jnp.arange(120).reshape(40, 3) % 2 == 0, 0.5, 0.0)}
MASKS = (jnp.arange(120).reshape(40, 3) % 2 == 0,)
TRAINED = {"b": SENT["b"] + 0.3, "w": jnp.where(MASKS[0], 0.9, 0.0)}
KEY = jax.random.key(0)
SEVEN = dict(
    clients__number=7, clients__up_mb_s=(5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0), clients__down_mb_s=(20.0,), rounds=8
)
SAFE = dict(submodel__importance="weight")  # what a robust rule needs where sub-models are pruned
TWO = dict(attack__clients=(1, 4), attack__scale=3.0)


def attack(name, scale):
    return make_attack(SimpleNamespace(name=name, scale=scale))


def test_only_malicious_clients_send_the_attack():
    assert attack("none", 2.0) is None
    for name in ATTACKS.with_trait(lambda rule: rule is not None):
        tiny.same(attack(name, 2.0).apply(LAYOUT, SENT, TRAINED, MASKS, jnp.array(False), KEY), TRAINED)
    received = attack("sign_flip", 2.0).apply(LAYOUT, SENT, TRAINED, MASKS, jnp.array(True), KEY)
    tiny.close(received, {"b": SENT["b"] - 0.6, "w": jnp.where(MASKS[0], -0.3, 0.0)})
    received = attack("nan", 1.0).apply(LAYOUT, SENT, TRAINED, MASKS, jnp.array(True), KEY)
    assert (
        np.isnan(received["b"]).all()
        and np.isnan(received["w"][MASKS[0]]).all()
        and (received["w"][~MASKS[0]] == 0).all()
    )
    received = attack("noise", 5.0).apply(LAYOUT, SENT, TRAINED, MASKS, jnp.array(True), KEY)
    assert (received["w"][~MASKS[0]] == 0).all()
    assert 3.5 < np.std(np.asarray(received["w"] - SENT["w"])[MASKS[0]]) < 6.5
    labels = attack("label_flip", 1.0).labels(jnp.array([0, 3, 9]), jnp.array(True), 10)
    assert labels.tolist() == [9, 6, 0]
    assert attack("label_flip", 1.0).labels(jnp.array([0, 3, 9]), jnp.array(False), 10).tolist() == [0, 3, 9]


def test_attack_name_allows_the_registry():
    for name in ATTACKS:
        assert RULES["attack.name"].accepts(name)
    assert RULES["attack.name"].allowed == ATTACKS.allowed == "one of none, sign_flip, noise, nan, label_flip"


def test_malicious_clients_are_drawn_by_seed_or_listed():
    drawn = [
        malicious_clients(tiny.config(attack__name="nan", attack__number=2).attack, 10, seed) for seed in range(30)
    ]
    assert all(len(set(who)) == 2 and set(who) <= set(range(10)) and list(who) == sorted(who) for who in drawn)
    assert len(set(drawn)) > 10 and drawn[3] == malicious_clients(
        tiny.config(attack__name="noise", attack__number=2).attack, 10, 3
    )
    assert malicious_clients(tiny.config(attack__name="nan", attack__clients=(3, 0)).attack, 4, 0) == (0, 3)
    assert malicious_clients(tiny.config().attack, 4, 0) == ()


def norm(tree):
    return math.sqrt(sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in jax.tree.leaves(tree)))


def test_an_update_is_shortened_to_the_norm_and_no_further():
    update = jax.tree.map(jnp.subtract, TRAINED, SENT)
    long = norm(update)
    out, verdict = UpdateFilter(2 * long, 0.0, False)(LAYOUT, SENT, TRAINED, MASKS, KEY)
    tiny.same(out, TRAINED)
    assert verdict == ACCEPTED
    out, verdict = UpdateFilter(long / 4, 0.0, False)(LAYOUT, SENT, TRAINED, MASKS, KEY)
    assert verdict == CLIPPED
    tiny.close(jax.tree.map(jnp.subtract, out, SENT), jax.tree.map(lambda u: u / 4, update))


def test_what_is_not_finite_is_rejected():
    for bad in (jnp.nan, jnp.inf, 1e30):
        received = {"b": TRAINED["b"], "w": TRAINED["w"].at[0, 0].set(bad)}
        out, verdict = UpdateFilter(1.0, 0.0, False)(LAYOUT, SENT, received, MASKS, KEY)
        assert verdict == REJECTED
        tiny.same(out, SENT)
        out, verdict = UpdateFilter(None, 0.0, True)(LAYOUT, SENT, received, MASKS, KEY)
        assert verdict == REJECTED and np.isnan(out["b"]).all() and np.isnan(out["w"]).all()


def test_noise_is_added_once_to_each_weight_that_is_held():
    clip, z = 0.01, 3.0
    plain, _ = UpdateFilter(clip, 0.0, False)(LAYOUT, SENT, TRAINED, MASKS, KEY)
    added = []
    for k in range(200):
        out, _ = UpdateFilter(clip, z, False)(LAYOUT, SENT, TRAINED, MASKS, jax.random.key(k))
        difference = jax.tree.map(jnp.subtract, out, plain)
        assert (difference["w"][~MASKS[0]] == 0).all()
        added += [np.asarray(difference["b"]), np.asarray(difference["w"])[np.asarray(MASKS[0])]]
    noise = np.concatenate(added) / (clip * z)
    assert abs(noise.mean()) < 5 / math.sqrt(len(noise)) and abs(noise.std() - 1) < 5 / math.sqrt(2 * len(noise))


def test_with_noise_nobody_sees_what_was_rejected():
    received = jax.tree.map(lambda w: w * jnp.nan, TRAINED)
    out, verdict = UpdateFilter(1.0, 0.5, False)(LAYOUT, SENT, received, MASKS, KEY)
    assert verdict == REJECTED and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    difference = np.asarray(out["w"] - SENT["w"])[np.asarray(MASKS[0])]
    assert 0.3 < difference.std() < 0.7  # an update of nothing, and its noise
    config = tiny.config(
        "fedavg", aggregation__name="median", aggregation__byzantine=1, aggregation__clip_norm=1.0,
        privacy__noise_multiplier=0.5,
    )  # fmt: skip
    assert not make_update_filter(config).rejected_as_nan


def gaussian_epsilon(multiplier, delta):
    """epsilon of one Gaussian release (Balle and Wang 2018, theorem 8), by bisection."""
    mu = 1 / multiplier

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, 1000.0
    for _ in range(200):
        epsilon = (low + high) / 2
        reached = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
        low, high = (epsilon, high) if reached > delta else (low, epsilon)
    return high


@pytest.mark.parametrize(("multiplier", "releases"), [(1.0, 1), (4.0, 10), (10.0, 400), (0.7, 2)])
def test_epsilon_is_that_of_composed_gaussians(multiplier, releases):
    want = gaussian_epsilon(multiplier / math.sqrt(releases), 1e-5)
    assert privacy.spent(multiplier, 1e-5, releases) == pytest.approx(want, rel=2e-3)
    assert privacy.spent(multiplier, 1e-5, 0) == 0.0


def test_the_report_tells_the_client_that_released_most():
    config = tiny.config("fedavg", aggregation__clip_norm=1.0, privacy__noise_multiplier=2.0)
    found = privacy.privacy_report(config, [3, 9, 9, 0])
    assert (found["client"], found["releases"], found["clip_norm"]) == (1, 9, 1.0)
    assert found["epsilon"] == pytest.approx(gaussian_epsilon(2.0 / 3, 1e-5), rel=2e-3)
    assert privacy.privacy_report(tiny.config("fedavg"), [1]) is None


# Whole runs.


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ("fedavg", "prfl"))
def test_nan_updates_end_plain_averaging_and_no_defence(strategy):
    under_attack = {**SEVEN, **TWO, "attack__name": "nan"}
    plain = tiny.run(strategy, **under_attack)
    assert plain.report["ended"]["how"] == "not_finite"
    assert plain.report["attack"] == {"name": "nan", "scale": 3.0, "clients": [1, 4]} and "defence" not in plain.report
    for name in {"fedavg": ("trimmed_mean", "multi_krum", None), "prfl": ("median", "krum")}[strategy]:
        defence = {"aggregation__clip_norm": 1.0} if name is None else {"aggregation__name": name, **SAFE}
        ran = tiny.run(strategy, **under_attack, **defence)
        assert ran.report["ended"]["how"] == "rounds", (name, ran.report["ended"])
        malicious = [c for window in ran.of("window") for c in window["arrivals"] if c in (1, 4)]
        rejected = [c for window in ran.of("window") for c in window["rejected"]]
        assert rejected == malicious and ran.report["defence"]["rejected"] == len(malicious) > 0
        assert [c["rejected"] for c in ran.report["clients"]] == [malicious.count(c) for c in range(7)]
        kept = ran.report["defence"]["kept_fraction"]
        assert (
            kept is None if name is None else kept < 0.9
        )  # malicious clients that are rejected do not stop the training
        jsonschema.validate(ran.report, load_schema())
        assert f"{len(malicious)} rejected" in summary_text(ran.report)
        assert "2 of 7 clients attack (nan): 1, 4" in summary_text(ran.report)


def test_runs_without_attack_and_filter_do_not_report_them():
    ran = tiny.run("prfl")
    assert not {"attack", "defence", "privacy"} & ran.report.keys()
    assert not any({"clipped", "rejected", "kept"} & window.keys() for window in ran.of("window"))


@pytest.mark.slow
def test_a_large_attack_moves_the_mean_far_and_the_median_little():
    """Distance of the server model from that of the same run without malicious clients."""
    apart = {}
    for name in ("fedavg", "median"):
        settings = {**SEVEN, "rounds": 1, "aggregation__name": name}
        honest, attacked = tiny.run("fedavg", **settings), tiny.run("fedavg", **settings, **TWO, attack__name="noise")
        apart[name] = norm(jax.tree.map(np.subtract, attacked.params, honest.params))
    assert apart["fedavg"] > 10 * apart["median"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ("median", "krum"))
def test_map_groups_and_training_ahead_agree_under_attack(name):
    settings = {
        **SEVEN,
        **TWO,
        "attack__name": "sign_flip",
        "aggregation__name": name,
        "rounds": 10,
        "window__close": "fixed",
        "submodel__importance": "weight",
        "local__lr": 0.1,
    }
    one = tiny.run("prfl", **settings, engine__clients="map")
    for other in (
        {"engine__clients": "vmap"},
        {"engine__clients": "vmap", "engine__train": "pending", "engine__group": 2},
    ):
        ran = tiny.run("prfl", **settings, **other)
        for got, want in zip(ran.of("window"), one.of("window"), strict=True):
            assert got["arrivals"] == want["arrivals"] and got["kept"] == want["kept"]
        tiny.close(ran.params, one.params)


@pytest.mark.slow
def test_noise_and_clipping_are_the_same_by_map_and_ahead():
    settings = {**SEVEN, "aggregation__clip_norm": 0.05, "privacy__noise_multiplier": 0.1, "rounds": 10}
    one = tiny.run("fedbuff", **settings, engine__clients="map")
    other = tiny.run("fedbuff", **settings, engine__clients="vmap", engine__train="pending")
    assert [w["clipped"] for w in one.of("window")] == [w["clipped"] for w in other.of("window")]
    assert one.report["defence"]["clipped"] > 0 and one.report["privacy"]["releases"] > 0
    tiny.close(other.params, one.params)
    jsonschema.validate(one.report, load_schema())
    assert "Client-level privacy: epsilon" in summary_text(one.report)


@pytest.mark.slow
def test_a_resumed_run_under_attack_gives_the_same_report(tmp_path):
    changes = {
        **SEVEN,
        **TWO,
        **SAFE,
        "attack__name": "noise",
        "aggregation__name": "trimmed_mean",
        "aggregation__clip_norm": 0.5,
        "engine__chunk_windows": 2,
    }
    whole = tiny.run("prfl", **changes)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        with pytest.raises(Interrupted):
            Experiment(tiny.config("prfl", **changes)).run(tmp_path / "run", guard=tiny.StopAt(4), progress=False)
        again = Experiment(tiny.config("prfl", **changes)).run(tmp_path / "run", progress=False)
    tiny.same(again.params, whole.params)
    assert json.dumps(comparable(again.report)) == json.dumps(comparable(whole.report))


@pytest.mark.slow
def test_batched_seeds_have_their_own_malicious_clients(tmp_path):
    changes = {
        **SEVEN,
        "attack__name": "sign_flip",
        "attack__number": 2,
        "aggregation__name": "median",
        "local__lr": 0.1,
    }
    configs = [tiny.config("fedavg", seed=seed, **changes) for seed in range(3)]
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        found = run_batched(configs, [tmp_path / str(k) for k in range(3)], progress=False)
    assert len({tuple(one.report["attack"]["clients"]) for one in found}) > 1
    for one, config in zip(found, configs, strict=True):
        alone = tiny.run_experiment(Experiment(config))
        assert one.report["attack"] == alone.report["attack"]
        tiny.close(one.params, alone.params)


@pytest.mark.slow
def test_who_failed_has_no_vote_by_what_it_sent_before():
    """With windows that wait for all, a cohort of everybody and no cohort are the same method, also with dropouts."""
    settings = {**SEVEN, "aggregation__name": "median", "faults__dropout": 0.3, "rounds": 10}
    one, cohort = tiny.run("fedavg", **settings), tiny.run("fedavg", **settings, window__cohort=7)
    assert one.report["faults"]["dropout"] > 0
    assert [w["arrivals"] for w in one.of("window")] == [w["arrivals"] for w in cohort.of("window")]
    tiny.close(one.params, cohort.params)


@pytest.mark.slow
def test_an_honest_update_that_is_rejected_does_not_end_the_run():
    blown_up = {**SEVEN, "rounds": 3, "local__lr": 1e30}
    assert tiny.run("fedavg", **blown_up).report["ended"]["how"] == "not_finite"
    ran = tiny.run("fedavg", **blown_up, aggregation__clip_norm=1.0)
    assert ran.report["ended"]["how"] == "rounds" and ran.report["defence"]["rejected"] == 21


def test_epsilon_of_little_noise_and_many_releases():
    mu = math.sqrt(1000) / 0.1  # for so large a mu it is mu^2 / 2 + mu times the normal quantile of 1 - delta
    assert privacy.spent(0.1, 1e-5, 1000) == pytest.approx(mu**2 / 2 + 4.265 * mu, rel=1e-3)


def test_label_flips_take_their_mask_of_labels_along():
    # HeteroFL leaves out outputs of labels that a client lacks: a malicious client reports to have those it flips to
    present = jnp.array([True, False, False, True, True])
    flip = attack("label_flip", 1.0)
    assert flip.present(present, jnp.array(True)).tolist() == [True, True, False, False, True]
    assert flip.present(present, jnp.array(False)).tolist() == present.tolist()
    assert attack("nan", 1.0).present(present, jnp.array(True)).tolist() == present.tolist()


OWN_KERNELS = """
import jax
from prfl_jax.aggregate import Aggregation
from prfl_jax.aggregate.choices import each_once
from prfl_jax.aggregate.robust import median

SHAPE = Aggregation(lambda held: {"w": held.weights}, each_once, staleness=False)
RAISES = Aggregation(lambda held: held.nothing, each_once, staleness=False)
PLAIN = Aggregation(lambda held: held.params, each_once, staleness=False, least=lambda f: 1)
GOOD = Aggregation(median, each_once, staleness=False, arrivals_alone=True, least=lambda f: 2 * f + 1)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SHAPE", "gives another pytree; allowed: a pytree like held.params"),
        ("RAISES", "'StackedUpdates' object has no attribute 'nothing'"),
        ("PLAIN", "gives a dict; allowed: robust.Robust(a pytree like held.params, an int32), as it has least"),
    ],
)
def test_a_mistake_in_a_plugin_kernel_is_refused(tmp_path, name, said):
    (tmp_path / "mine.py").write_text(OWN_KERNELS)
    with pytest.raises(UserError) as error:
        tiny.simulation("fedavg", aggregation__name=f"{tmp_path}/mine.py:{name}")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_robust_kernel_of_a_plugin_equals_the_built_in(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_KERNELS)
    settings = {**SEVEN, **TWO, "attack__name": "nan", "rounds": 4}
    own = tiny.run_experiment(
        Experiment(tiny.config("fedavg", **settings, aggregation__name=f"{tmp_path}/mine.py:GOOD"))
    )
    named = tiny.run("fedavg", **settings, aggregation__name="median")
    assert own.report["defence"] == named.report["defence"] and own.report["ended"]["how"] == "rounds"
    tiny.same(own.params, named.params)


def test_least_is_for_kernels_that_can_outvote():
    with pytest.raises(UserError, match="with least cannot have the kernel 'maskfedavg'"):
        Aggregation("maskfedavg", each_once, staleness=False, least=lambda f: 1)


@pytest.mark.parametrize(
    ("strategy", "changes", "said"),
    [
        ("fedavg", {"attack.number": 2}, "config.attack.number=2: allowed is 0 with attack.name='none'"),
        ("fedavg", {"attack.name": "nan"}, "config.attack.number=0: allowed is >= 1 with attack.clients=()"),
        (
            "fedavg",
            {"attack.name": "nan", "attack.number": 5},
            "config.attack.number=5: allowed is at most clients.num",
        ),
        (
            "fedavg",
            {"attack.name": "nan", "attack.number": 1, "attack.clients": (1,)},
            "config.attack.number=1: allowed is 0",
        ),
        (
            "fedavg",
            {"attack.name": "nan", "attack.clients": (1, 1)},
            "config.attack.clients=(1, 1): allowed is different",
        ),
        ("fedavg", {"attack.name": "nan", "attack.clients": (4,)}, "allowed is different numbers from 0 to 3"),
        ("fedavg", {"aggregation.name": "median"}, "config.aggregation.byzantine=2: allowed is at most 1 with"),
        (
            "fedavg",
            {"aggregation.name": "krum", "aggregation.byzantine": 1},
            "allowed is at most 0 with aggregation.name",
        ),
        (
            "prfl",
            {"aggregation.name": "median", "aggregation.byzantine": 1},
            "config.submodel.importance='server_sq_grad': allowed is weight with aggregation.name='median'",
        ),
        (
            "fedavg",
            {
                "aggregation.name": "median",
                "aggregation.byzantine": 1,
                "window.cohort": 4,
                "window.close": "each_arrival",
            },
            "allowed is at most 0 with aggregation.name='median' and window.close='each_arrival'",
        ),
        (
            "prfl",
            {"privacy.noise_multiplier": 1.0, "aggregation.clip_norm": 1.0},
            "config.eval.signal='heldout': allowed is test with privacy.noise_multiplier=1.0",
        ),
        (
            "fedavg",
            {"aggregation.name": "median", "aggregation.byzantine": 1, "engine.models": "host"},
            "config.engine.models",
        ),
        ("fedavg", {"privacy.noise_multiplier": 1.0}, "config.aggregation.clip_norm=None: allowed is a number > 0"),
        (
            "fedavg",
            {"privacy.noise_multiplier": 1.0, "aggregation.clip_norm": 1.0, "aggregation.client_weight": "dataset"},
            "config.aggregation.client_weight='dataset': allowed is samples_per_round or uniform",
        ),
        ("heterofl", {"privacy.noise_multiplier": 1.0, "aggregation.clip_norm": 1.0}, "config.local.name='scaled_sgd'"),
        (
            "prfl_norecover",
            {"privacy.noise_multiplier": 1.0, "aggregation.clip_norm": 1.0, "submodel.importance": "client_sq_grad"},
            "config.submodel.importance='client_sq_grad': allowed is server_sq_grad",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(strategy, changes, said):
    with pytest.raises(UserError) as error:
        validate(tiny.config(strategy, **{key.replace(".", "__"): value for key, value in changes.items()}))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_without_the_accountant_noise_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(UserError, match="pip install 'prfl_jax\\[privacy\\]'"):
        tiny.simulation("fedavg", aggregation__clip_norm=1.0, privacy__noise_multiplier=1.0)
