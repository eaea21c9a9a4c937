"""Aggregation weights (Eq. 7) and staleness."""

import itertools
import math

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from marked import every_third
from ml_collections import ConfigDict

from prfl_jax.aggregate import AGGREGATIONS, CloseContext, Slot, client_weights, staleness_weight
from prfl_jax.clock.types import Arrival
from prfl_jax.config.canonical import config_hash, from_dict, same_run, to_dict
from prfl_jax.config.cli import load_config, split_argv
from prfl_jax.config.comparison import compared
from prfl_jax.config.validate import validate
from prfl_jax.runtime.training import Variants
from prfl_jax.strategies.table import METHODS
from prfl_jax.system.errors import UserError


def cfg(name="buffered_maskfedavg", staleness="polynomial", a=0.6, b=4.0, server_lr=1.0, alpha=0.6):
    keys = dict(name=name, staleness=staleness, staleness_a=a, staleness_b=b, server_lr=server_lr, alpha=alpha)
    return ConfigDict(keys)


def close(config, window, slots, p, arrivals=(), round_s=None, dt_s=7.0):
    """`arrivals` are (client, version)."""
    came = [Arrival(client, 0, version, 0.0, 0.0, 0.0, 1.0, 0) for client, version in arrivals]
    mean_s = np.full(len(p), np.nan) if round_s is None else np.asarray(round_s, float)
    return AGGREGATIONS.find(config.name).close(config, CloseContext(window, came, slots, p, mean_s, dt_s))


def slot_weights(config, window, slots, p):
    closing = close(config, window, slots, p)
    assert closing.arrivals == () and closing.server_lr == config.server_lr
    return closing.slots


def test_constant():
    np.testing.assert_array_equal(staleness_weight(np.array([0, 1, 50]), "constant", 0.6, 4.0), [1, 1, 1])


def test_polynomial():
    got = staleness_weight(np.arange(6), "polynomial", 0.6, 4.0)
    np.testing.assert_allclose(got, [math.pow(tau + 1, -0.6) for tau in range(6)], rtol=1e-15)
    np.testing.assert_array_equal(staleness_weight(np.arange(6), "polynomial", 0.0, 4.0), np.ones(6))


def test_hinge_with_the_one_that_copies_lose():
    got = staleness_weight(np.arange(8), "hinge", 10.0, 4.0)
    np.testing.assert_allclose(got, [1, 1, 1, 1, 1, 1 / 11, 1 / 21, 1 / 31], rtol=1e-15)


@pytest.mark.parametrize("b", [1e9, 1e300, math.inf])
def test_hinge_with_a_huge_b_is_constant(b):
    np.testing.assert_array_equal(staleness_weight(np.arange(10_000), "hinge", 10.0, b), np.ones(10_000))


def test_staleness_refuses():
    with pytest.raises(ValueError, match="negative"):
        staleness_weight(np.array([0, -1]), "constant", 0.6, 4.0)
    with pytest.raises(UserError, match="aggregation.staleness='exponential': allowed is one of constant, polynom"):
        staleness_weight(np.array([0]), "exponential", 0.6, 4.0)


slots = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 19), st.integers(0, 9))), min_size=1, max_size=8
)  # None, or (version, windows it took to arrive)


@settings(deadline=None, max_examples=80)
@given(slots, st.integers(0, 5), st.sampled_from(["constant", "polynomial", "hinge"]), st.integers(0, 2**32 - 1))
def test_buffered_weights_are_eq_7(drawn, later, kind, seed):
    held = [None if item is None else Slot(item[0], item[0] + 1 + item[1]) for item in drawn]
    window = max((slot.window for slot in held if slot), default=1) + later
    p = np.random.default_rng(seed).random(len(held)) + 0.1
    s = []
    for slot, share in zip(held, p, strict=True):
        if slot is None:
            s.append(0.0)
            continue
        tau = window - 1 - slot.version
        hinge = 1.0 if tau <= 4 else 1 / (0.6 * (tau - 4) + 1)
        s.append(share * {"constant": 1.0, "polynomial": (tau + 1) ** -0.6, "hinge": hinge}[kind])
    got = slot_weights(cfg(staleness=kind), window, held, p)
    assert got.dtype == np.float64
    if any(slot for slot in held):
        np.testing.assert_allclose(got, np.array(s) / sum(s), rtol=1e-12)
        assert got.sum() == pytest.approx(1.0)
    else:
        assert not got.any()


def test_a_slot_ages_while_others_are_refreshed():
    p = np.array([0.5, 0.5])
    old = []
    for window in range(1, 8):
        held = [Slot(0, 1), Slot(window - 1, window)]
        weights = slot_weights(cfg(), window, held, p)
        tau = window - 1
        assert weights[0] / weights[1] == pytest.approx((tau + 1) ** -0.6)
        old.append(weights[0])
    assert old == sorted(old, reverse=True) and len(set(old)) == len(old)


def test_empty_slots_weigh_0_and_empty_buffers_give_no_weights():
    p = np.array([0.2, 0.3, 0.5])
    weights = slot_weights(cfg(), 1, [None, Slot(0, 1), None], p)
    np.testing.assert_array_equal(weights, [0, 1, 0])
    assert not slot_weights(cfg(), 3, [None] * 3, p).any()


def test_fedavg_counts_the_arrivals_of_this_window_by_size_alone():
    p = np.array([0.2, 0.3, 0.5])
    arrivals = [(1, 0), (0, 6)]  # (client, version): the first is stale
    closing = close(cfg("fedavg"), 7, [None] * 3, p, arrivals)
    assert closing.arrivals == pytest.approx((0.6, 0.4)) and closing.keep == 0 and not closing.slots.any()
    closing = close(cfg("fedavg", server_lr=0.5), 7, [None] * 3, p, arrivals)
    assert closing.arrivals == pytest.approx((0.3, 0.2)) and closing.keep == 0.5
    closing = close(cfg("fedavg"), 8, [Slot(5, 6)] * 3, p)
    assert closing.arrivals == () and closing.keep == 1


def test_client_weights():
    samples, sizes = np.full(4, 100.0), np.array([10, 20, 30, 40])
    np.testing.assert_allclose(client_weights("samples_per_round", samples, sizes), [0.25] * 4)
    np.testing.assert_allclose(client_weights("dataset", samples, sizes), [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(client_weights("uniform", samples, sizes), [0.25] * 4)
    with pytest.raises(UserError, match="aggregation.client_weight='other': allowed is one of samples_per_round, dat"):
        client_weights("other", samples, sizes)


def test_without_the_buffer_arrivals_are_mixed_in_by_their_share():
    """nobuff: a = sum of the arrived slots' s_i over that of all."""
    p = np.array([0.5, 0.3, 0.2])
    held = [Slot(6, 7), Slot(3, 5), None]  # fresh; four windows old by now and not fresh
    closing = close(cfg("unbuffered_maskfedavg", server_lr=0.5), 7, held, p)
    np.testing.assert_allclose(closing.slots, [1, 0, 0])
    assert closing.server_lr == pytest.approx(0.5 * 0.5 / (0.5 + 0.3 * 4**-0.6))
    nothing = close(cfg("unbuffered_maskfedavg"), 8, held, p)
    assert not nothing.slots.any() and nothing.server_lr == 0.0


def test_heterofl_counts_each_arrival_once():
    held = [Slot(0, 7), Slot(6, 7), Slot(5, 6)]
    np.testing.assert_allclose(close(cfg("counted"), 7, held, np.array([0.7, 0.2, 0.1])).slots, [0.5, 0.5, 0])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=6), st.floats(0.05, 1.0), st.integers(0, 2**32 - 1))
def test_mixing_as_a_sum_is_mixing_one_by_one(taus, alpha, seed):
    """FedAsync: w <- (1 - a_k) w + a_k w_k in order of arrival."""
    rng = np.random.default_rng(seed)
    models = rng.standard_normal((len(taus), 5))
    w = start = rng.standard_normal(5)
    for tau, model in zip(taus, models, strict=True):
        a = alpha * (tau + 1) ** -0.5
        w = (1 - a) * w + a * model
    arrivals = [(k, 20 - 1 - tau) for k, tau in enumerate(taus)]
    p = np.full(max(1, len(taus)), 1.0)
    closing = close(cfg("mixing", a=0.5, alpha=alpha), 20, [None] * len(p), p, arrivals)
    assert closing.keep + sum(closing.arrivals) == pytest.approx(1.0)
    np.testing.assert_allclose(closing.keep * start + np.array(closing.arrivals) @ models, w, rtol=1e-10, atol=1e-12)


def test_fedfix_by_hand():
    """d_i = ceil(tau_i / dt) p_i: rounds of 6.9, 7, 7.1 and 30 s in windows of 7 s take 1, 1, 2 and 5."""
    p = np.array([0.4, 0.3, 0.2, 0.1])
    config = cfg("fedfix", server_lr=0.5)
    closing = close(config, 9, [None] * 4, p, [(3, 2), (0, 8), (2, 7), (1, 8)], [6.9, 7.0, 7.1, 30.0])
    np.testing.assert_allclose(closing.arrivals, [0.5 * 5 * 0.1, 0.5 * 0.4, 0.5 * 2 * 0.2, 0.5 * 0.3])
    assert closing.keep == 1.0


def test_fedbuff_divides_by_k_and_not_by_the_weights():
    p = np.array([0.9, 0.1])
    closing = close(cfg("fedbuff", a=0.5, server_lr=0.8), 9, [None] * 2, p, [(1, 8), (0, 5), (1, 8)])  # tau 0, 3, 0
    np.testing.assert_allclose(closing.arrivals, [0.8 / 3, 0.8 / 3 / 2, 0.8 / 3])
    assert closing.keep == 1.0
    assert close(cfg("fedbuff"), 9, [None] * 2, p).arrivals == ()


# Rules by which windows close, and what divides FedBuff's sum there (None: as many as arrived).
K_OF = {
    "k_arrivals, on_arrival": (dict(window__close="k_arrivals", window__k=3, window__dispatch="on_arrival"), 3),
    "k_arrivals, window_end": (dict(window__close="k_arrivals", window__k=2, window__dispatch="window_end"), 2),
    "each_arrival": (dict(window__close="each_arrival"), 1),
    "fixed": (dict(window__close="fixed", window__dispatch="window_end"), None),
    "all": (dict(window__close="all", window__dispatch="window_end"), None),
    "deadline": (dict(window__close="deadline", window__dispatch="window_end", window__deadline_share=0.5), None),
    "release": (dict(window__close="release", window__dispatch="window_end"), None),
    # one speed for all: ties; and two who leave: nobody else can arrive
    "with more": (dict(window__k=3, clients__up_mb_s=(2.0,), clients__down_mb_s=(8.0,), clients__sigma=0.0,
                       server__sigma=0.0, server__contention=False), 3),
    "with fewer": (dict(window__k=3, window__dispatch="window_end", faults__leave_s=(1e9, 1e9, 20.0, 20.0)), 3),
    "with fewer, by failures": (dict(window__k=4, window__dispatch="window_end", faults__dropout=0.4), 4),
    "ties, each_arrival": (dict(window__close="each_arrival", clients__up_mb_s=(2.0,), clients__down_mb_s=(8.0,),
                                clients__sigma=0.0, server__sigma=0.0, server__contention=False), 1),
}  # fmt: skip


KINDS = ("constant", "polynomial", "hinge")


@pytest.mark.parametrize("kind,name", every_third(itertools.product(KINDS, K_OF)))
def test_fedbuff_divides_by_the_arrivals_that_close_a_window(name, kind):
    changes, k = K_OF[name]
    config = tiny.config("fedbuff", aggregation__staleness=kind, aggregation__server_lr=0.8, **changes)
    planner = tiny.Simulation(config).new_planner()
    seen = set()
    for _ in range(40):
        item = planner.take()
        got = [float(r.coefficient[slot]) for r in item.rows for slot in r.arrive[: int(r.arrive_count)]]
        tau = [item.window.index - 1 - arrival.version for arrival in item.window.arrivals]
        s = {
            "constant": [1.0 for t in tau],
            "polynomial": [(t + 1) ** -0.6 for t in tau],
            "hinge": [1.0 if t <= 4 else 1 / (10 * (t - 4) + 1) for t in tau],
        }[kind]
        np.testing.assert_allclose(got, [0.8 * one / (k or len(tau)) for one in s], rtol=1e-6)
        seen.add(len(tau))
    if name.startswith("with fewer"):
        assert min(seen) < k


# --- staleness constants that are not given ---


@pytest.mark.parametrize("kind,strategy", every_third(itertools.product(KINDS, METHODS)))
def test_constants_by_kind_and_method(strategy, kind):
    config = tiny.config(strategy, aggregation__staleness=kind)
    told = to_dict(config)["aggregation"]
    want = {"hinge": 10.0, "polynomial": 0.5 if strategy == "fedasync" else 0.6, "constant": 0.6}[kind]
    assert (told["staleness_a"], told["staleness_b"]) == (want, 4.0)
    given = tiny.config(strategy, aggregation__staleness=kind, aggregation__staleness_a=want)
    assert config_hash(given) == config_hash(config)  # the same run
    other = tiny.config(strategy, aggregation__staleness=kind, aggregation__staleness_a=0.7)
    assert config_hash(other) != config_hash(config) and to_dict(other)["aggregation"]["staleness_a"] == 0.7
    assert from_dict(told_again := to_dict(config)).aggregation.staleness_a == want and told_again == to_dict(config)


def test_configs_from_before_are_the_runs_they_were():
    """0.6 for all is what a config without the key once meant; its hash, where 0.6 is still in force, is the same."""
    config = tiny.config("prfl", aggregation__staleness="polynomial")
    assert same_run(to_dict(tiny.config("prfl", aggregation__staleness_a=0.6)), config)
    before = to_dict(tiny.config("fedasync", aggregation__staleness_a=0.6))
    assert not same_run(before, tiny.config("fedasync"))
    assert same_run(before, from_dict(before)) and from_dict(before).aggregation.staleness_a == 0.6


def mixed(config):
    """How far W moves to the first arrivals of each staleness: {tau: alpha s(tau)}, by the plan's keep and c_k."""
    planner, found = tiny.Simulation(config).new_planner(), {}
    for _ in range(30):
        item = planner.take()
        if len(item.staleness) == 1:
            found[item.staleness[0]] = 1.0 - float(item.rows[-1].keep)
    return found


@pytest.mark.parametrize(
    ("kind", "given", "s"),
    [
        ("polynomial", None, lambda t: (t + 1) ** -0.5),
        ("polynomial", 0.6, lambda t: (t + 1) ** -0.6),
        ("hinge", None, lambda t: 1.0 if t <= 4 else 1 / (10 * (t - 4) + 1)),
        ("hinge", 0.5, lambda t: 1.0 if t <= 4 else 1 / (0.5 * (t - 4) + 1)),
        ("constant", None, lambda t: 1.0),
    ],
)
def test_a_run_uses_the_constant_that_is_in_force(kind, given, s):
    found = mixed(tiny.config("fedasync", aggregation__staleness=kind, aggregation__staleness_a=given))
    assert len(found) >= 4 and max(found) > 5
    for tau, a in found.items():
        assert a == pytest.approx(0.6 * s(tau), rel=1e-5)


def load(tmp_path, body, overrides=()):
    file = tmp_path / "cfg.py"
    head = "from prfl_jax import strategies\nfrom prfl_jax.config import default_config\ndef get_config():\n"
    file.write_text(head + "".join(f"    {line}\n" for line in body) + "    return c\n")
    _, pairs, _ = split_argv(["train.py", f"--config={file}", *overrides])
    return to_dict(load_config(file, pairs))["aggregation"]["staleness_a"]


def test_a_value_that_is_given_wins_wherever_it_stands(tmp_path):
    start, async_ = "c = default_config()", "strategies.use(c, 'fedasync')"
    for value in (0.3, 0.5, 0.6):  # also one that is some default
        given = f"c.aggregation.staleness_a = {value}"
        assert load(tmp_path, [start, given, async_]) == value
        assert load(tmp_path, [start, async_, given]) == value
        assert load(tmp_path, [start, given], ["--config.strategy=fedasync"]) == value
        flag = f"--config.aggregation.staleness_a={value}"
        for flags in ([flag, "--config.strategy=fedasync"], ["--config.strategy=fedasync", flag]):
            assert load(tmp_path, [start], flags) == value
            assert load(tmp_path, [start, "c.aggregation.staleness_a = 0.9"], flags) == value
            assert load(tmp_path, [start], [*flags, "--config.aggregation.staleness=hinge"]) == value
    hinge = "--config.aggregation.staleness=hinge"
    assert load(tmp_path, [start, async_]) == 0.5
    assert load(tmp_path, [start, async_], [hinge]) == 10.0
    assert load(tmp_path, [start, async_], ["--config.strategy=fedasyn"]) == 0.6
    assert load(tmp_path, [start], [hinge, "--config.strategy=fedasyn"]) == 10.0
    assert load(tmp_path, [start, given, async_], ["--config.aggregation.staleness_a=none"]) == 0.5
    assert load(tmp_path, [start, "c.aggregation.staleness_a = 1", async_]) == 1.0  # a whole number


def test_what_varies_and_what_is_compared_has_its_own_default():
    base = tiny.config("fedasyn")
    varied = Variants(vary="aggregation.staleness=constant,polynomial,hinge").of(base)
    assert [to_dict(one)["aggregation"]["staleness_a"] for one in varied.values()] == [0.6, 0.6, 10.0]
    for value, want in ((None, 0.5), (0.6, 0.6)):
        config = tiny.config("fedasyn", aggregation__staleness_a=value)
        other = compared(config, "fedasync", validate).config
        assert to_dict(other)["aggregation"]["staleness_a"] == want


def test_a_sweep_over_methods_and_kinds_has_the_defaults_of_each(tmp_path):
    space_file = tmp_path / "space.py"
    space_file.write_text(
        "def get_space():\n    return {'aggregation.staleness': ['polynomial', 'hinge'],"
        " 'strategy': ['fedasyn', 'fedasync']}\n"
    )
    pytest.importorskip("optuna")
    from prfl_jax.sweep.space import Space

    space = Space.read(str(space_file))
    configs = [space.config(tiny.config("fedbuff"), values) for values in space.grid()]
    got = [to_dict(one)["aggregation"]["staleness_a"] for one in configs]
    assert got == [0.6, 0.5, 10.0, 10.0]
    given = tiny.config("fedbuff", aggregation__staleness_a=0.4)
    assert all(to_dict(space.config(given, v))["aggregation"]["staleness_a"] == 0.4 for v in space.grid())
