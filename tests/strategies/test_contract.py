"""What holds of every method: runs of each row of `strategies.METHODS`, end to end.

A method that is added there runs through all of this by itself. Where it needs other
settings to equal FedAvg than `ALIKE` has, it says so in `EQUALS_FEDAVG`.
"""

from unittest import mock

import jsonschema
import numpy as np
import pytest
import tiny
from marked import slow, slow_except

from prfl_jax.aggregate import AGGREGATIONS
from prfl_jax.density import find_density
from prfl_jax.local import LOCAL_WORKS
from prfl_jax.report import comparable, load_schema
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.strategies.table import METHODS
from prfl_jax.submodel import SUBMODELS
from prfl_jax.system.signals import Interrupted
from prfl_jax.transport import find_upload

# The fast tests run everything for two methods: one with windows of a fixed length, pruning and recovery, and one with
# windows of one arrival and full models. They make one run of a method for each other way to close windows. The
# others differ from one of these in few parts.
MAIN = ("prfl", "fedasync")
ONCE = (*MAIN, "fedavg", "fedbuff")
each_method_once = pytest.mark.parametrize("method", slow_except(METHODS, *ONCE))
# computing takes no time, as in the paper, or some: another time for each client
COMPUTING = dict(clients__flop_s=(8e5, 4e5, 2e5, 1e5))
# Computing time changes only the times of the clock: methods of other windows, of other FLOP and of own step counts do.
PACED = (*MAIN, "fedavg", "heterofl", "fedprox")


def paced(main):
    """Each method without computing time, those in `PACED` with it too; all but the methods `main` are slow."""
    sets = [(name, {}) if name in main else slow(name, {}) for name in METHODS]
    sets += [slow(name, COMPUTING) for name in PACED]
    ids = [*METHODS, *(f"{name}-flop_s" for name in PACED)]
    return pytest.mark.parametrize(("method", "computing"), sets, ids=ids)


# All clients equally fast, all in each window, nobody pruned.
ALIKE = dict(
    clients__up_mb_s=(2.0,) * 4,
    clients__down_mb_s=(8.0,) * 4,
    clients__sigma=0.0,
    server__sigma=0.0,
    server__contention=False,
    window__close="all",
    window__first_waits_for_all=False,
    window__dispatch="window_end",
    density__min_density=1.0,
)
# Other settings under which a method equals FedAvg: FedFix counts the windows of a round, FjORD draws among its tiers.
NO_WIDTHS: dict[str, dict] = {
    name: dict(density__tiers=(1.0,)) for name, row in METHODS.items() if LOCAL_WORKS.find(row.local).draws_widths
}
EQUALS_FEDAVG: dict[str, dict] = {"fedfix": dict(window__close="fixed", window__dt_s=100.0), **NO_WIDTHS}
# FedOpt's: without momentum, and with a tau beside which no change counts, so that each step is eta D / (2 tau).
EQUALS_FEDAVG["fedavgm"] = dict(aggregation__optimizer_args='{"momentum": 0}')
for _name, _args in (("fedadagrad", ""), ("fedadam", '"b1": 0, "b2": 1, '), ("fedyogi", '"b1": 0, "b2": 1, ')):
    EQUALS_FEDAVG[_name] = dict(aggregation__optimizer_args=f'{{{_args}"tau": 10000}}', aggregation__server_lr=20_000.0)
# Bandits choose other densities than 1 wherever they may.
for _name, _row in METHODS.items():
    if find_density(_row.density).draws_ratios:
        EQUALS_FEDAVG[_name] = dict(density__name="full")
# Masks that change in the run: those that prune nothing, without an initial stage, are full.
SERVER_MASKS = [name for name, row in METHODS.items() if SUBMODELS.find(row.submodel).server_masks]
EQUALS_FEDAVG |= {
    name: dict(pruning__share=0.0, pruning__initial_rounds=0, pruning__density=1.0, density__name="full")
    for name in SERVER_MASKS
}
# FedProx's mu is 0.01 where none is given.
EQUALS_FEDAVG["fedprox"] = dict(local__prox_mu=1e-12)
# Settings of both: with one step SCAFFOLD's corrections add up to 0.
OF_BOTH: dict[str, dict] = {"scaffold": dict(local__steps=1)}
# Mixing takes updates one by one, so it is never a mean.
NOT_MIXING = [name for name, row in METHODS.items() if row.aggregation != "mixing"]

# One client more than ten times faster than the others: the densities are 1 and the minimum,
# whatever the transport does to the times, and the order of arrival is always the same.
FIXED_DENSITIES = dict(
    clients__up_mb_s=(60.0, 4.0, 3.0, 2.0),
    clients__down_mb_s=(240.0, 16.0, 12.0, 8.0),
    clients__sigma=0.0,
    server__sigma=0.0,
    server__contention=False,
    window__close="all",
    window__first_waits_for_all=False,
    window__dispatch="window_end",
    density__patience=100,  # nobody recovers
    eval_every_s=1000.0,
)


@pytest.mark.parametrize(
    ("method", "computing"),
    [
        *((name, {}) if name in ("prfl", "fedavg", "fedfix", "fedbuff") else slow(name, {}) for name in NOT_MIXING),
        *(slow(name, dict(clients__flop_s=(4e5,))) for name in ("prfl", "fedbuff", "fedprox")),
    ],
)
def test_alike_clients_at_density_1_give_fedavg(method, computing):
    alike = {**ALIKE, **OF_BOTH.get(method, {})}
    ran = tiny.run(method, **{**alike, **EQUALS_FEDAVG.get(method, {})}, **computing)
    fedavg = tiny.run("fedavg", **alike, **tiny.small_model(method), **computing)
    tiny.close(ran.params, fedavg.params, 1e-5)
    for own, theirs in zip(ran.of("window"), fedavg.of("window"), strict=True):
        assert own["arrivals"] == theirs["arrivals"] == [0, 1, 2, 3]
        np.testing.assert_allclose(own["loss"], theirs["loss"], rtol=1e-5)
    assert ran.report["final"]["accuracy"] == pytest.approx(fedavg.report["final"]["accuracy"], abs=0.006)


# prfl_nores is PR-FL with the other transport, so it is one of PR-FL's two
@pytest.fixture(scope="module", params=slow_except([name for name in METHODS if name != "prfl_nores"], *MAIN))
def transports(request):
    """The same method with the delta split, or one copy where masks are not nested, and with distinct sub-models."""
    shared = "one_copy" if request.param in SERVER_MASKS else "delta"
    return [tiny.run(request.param, transport__name=name, **FIXED_DENSITIES) for name in (shared, "distinct")]


def test_the_transport_changes_bytes_and_times_but_no_model(transports):
    delta, distinct = transports
    tiny.same(delta.params, distinct.params)
    for key in ("arrivals", "staleness", "loss", "percents", "client_bytes_up", "client_bytes_down", "bytes_up"):
        assert [w[key] for w in delta.of("window")] == [w[key] for w in distinct.of("window")], key
    assert delta.report["final"] | {"t_s": 0} == distinct.report["final"] | {"t_s": 0}
    assert delta.report["bytes_client_down"] == distinct.report["bytes_client_down"]
    if delta.experiment.config.strategy in SERVER_MASKS:  # all clients are sent the same, whatever they hold
        assert delta.report["bytes_down"] == distinct.report["bytes_down"]
    elif any(len(set(w["percents"])) > 1 for w in delta.of("window")):  # the split sends once what sub-models share
        assert delta.report["bytes_down"] < distinct.report["bytes_down"]
    else:
        assert delta.report["bytes_down"] <= distinct.report["bytes_down"]


def test_bytes_are_conserved(transports):
    """Once all that was sent has arrived, what the clients sent and received is what the totals say."""
    for ran in transports:
        report, windows = ran.report, ran.of("window")
        clients = report["clients"]
        assert sum(c["bytes_up"] for c in clients) == report["bytes_up"] == sum(w["bytes_up"] for w in windows)
        assert sum(c["bytes_down"] for c in clients) == report["bytes_client_down"]
        assert 0 < report["bytes_down"] <= report["bytes_client_down"]
        assert report["delta_saved"]["bytes"] == report["bytes_client_down"] - report["bytes_down"]
        if ran.experiment.config.strategy in SERVER_MASKS:  # tests/runtime/test_edge_pruning.py counts each message
            continue
        full = ran.experiment.simulation.method.size
        speeds = np.array(FIXED_DENSITIES["clients__up_mb_s"])
        for window in windows:  # everybody is dispatched and arrives in each
            density_pct = {d[0]: p for d, p in zip(window["client_bytes_down"], window["percents"], strict=True)}
            for client, sent in zip(window["arrivals"], window["client_bytes_up"], strict=True):
                row = METHODS[ran.experiment.config.strategy]
                whole = (2 if LOCAL_WORKS.find(row.local).sends_beside else 1) * full.value_bytes(density_pct[client])
                if find_upload(row.upload).compresses:  # nearly all that fits the time of the median client
                    fits = whole * min(1, speeds[client] * np.median(1 / speeds))
                    assert 0.99 * fits < sent <= fits * (1 + 1e-9)
                else:
                    assert sent == whole


def test_bytes_in_flight_are_all_that_is_missing():
    """With windows of fixed length the difference is what has not arrived yet."""
    ran = tiny.run("prfl")
    report, windows = ran.report, ran.of("window")
    assert sum(c["bytes_up"] for c in report["clients"]) <= report["bytes_up"]
    assert sum(c["bytes_down"] for c in report["clients"]) >= report["bytes_client_down"]
    sent = {client for w in windows for client, _ in w["client_bytes_down"]}
    assert sent == {0, 1, 2, 3}


@paced(MAIN)
def test_the_same_seed_gives_the_same_report_and_another_another(method, computing):
    first = tiny.run(method, **computing)
    again = tiny.run_experiment(Experiment(tiny.config(method, **computing)))
    assert comparable(again.report) == comparable(first.report)
    tiny.same(again.params, first.params)
    other = tiny.run(method, seed=1, **computing)
    assert other.report["curves"] != first.report["curves"]
    assert [w["loss"] for w in other.of("window")] != [w["loss"] for w in first.of("window")]
    assert [w["round_s"] for w in other.of("window")] != [w["round_s"] for w in first.of("window")]
    assert other.report["partition"] != first.report["partition"]


@paced(ONCE)
def test_compared_methods_share_partition_start_and_network(method, computing):
    own, fedavg = tiny.run(method, **computing), tiny.run("fedavg", **tiny.small_model(method), **computing)
    assert own.report["partition"] == fedavg.report["partition"]
    assert own.of("eval")[0]["mask"] == fedavg.of("eval")[0]["mask"]  # the initial model
    # the first window is the same for both: all clients, full models, the k-th transfer's draw
    one, other = own.of("window")[0], fedavg.of("window")[0]
    if own.experiment.config.window.first_waits_for_all:
        if method in NO_WIDTHS:  # whose steps train less than the model that was sent
            assert one["loss"] != other["loss"]
            one = tiny.run(method, **NO_WIDTHS[method], **computing).of("window")[0]
        assert sorted(one["arrivals"]) == sorted(other["arrivals"])
        by_client = [dict(zip(w["arrivals"], w["loss"], strict=True)) for w in (one, other)]
        for client in range(4):
            assert by_client[0][client] == pytest.approx(by_client[1][client], rel=1e-5)


def long_run(method):
    """Long enough to learn, also where a window has one arrival."""
    close = METHODS[method].window.close
    rounds = {"each_arrival": 240, "k_arrivals": 80}.get(close, 60)
    work = {"local__lr": 0.3, "local__steps": 5} if tiny.small_model(method) else {"local__lr": 1.0}
    if METHODS[method].aggregation == "bsp":  # what is pruned counts as 0, so that much pruning undoes what was learned
        work["density__min_density"] = 0.6
    if SUBMODELS.find(METHODS[method].submodel).shared_mask:  # this network is small
        work["pruning__density"] = 0.3
    if SUBMODELS.find(METHODS[method].submodel).masks_by_density:  # prune more than once, and not in the end alone
        work["pruning__interval"] = 10
    return tiny.run(method, rounds=rounds, eval_every_s=30.0, **work)


# The other rows learn by the same parts.
@pytest.mark.parametrize("method", slow_except(METHODS, *MAIN))
def test_it_learns(method):
    ran = long_run(method)
    accuracy = [e["mask"]["accuracy"] for e in ran.of("eval")]
    assert accuracy[0] < 0.25  # chance is 0.1
    assert ran.report["final"]["accuracy"] > 0.5
    assert ran.report["final"]["accuracy"] > accuracy[0] + 0.3


def follows_the_schema(method, ran):
    jsonschema.Draft202012Validator(load_schema()).validate(ran.report)
    assert ran.report["strategy"] == method and ran.report["ended"]["how"] == "rounds"


@each_method_once
def test_its_report_follows_the_schema(method):
    follows_the_schema(method, tiny.run(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_reports_of_other_runs_follow_the_schema(method):
    for ran in (tiny.run(method, **COMPUTING), long_run(method)):
        follows_the_schema(method, ran)


STALENESS = [n for n, row in METHODS.items() if AGGREGATIONS.find(row.aggregation).staleness]


@pytest.mark.parametrize("method", slow_except(STALENESS, "fedasync"))
def test_hinge_with_a_huge_b_is_constant(method):
    hinge = tiny.run(method, aggregation__staleness="hinge", aggregation__staleness_b=1e9)
    constant = tiny.run(method, aggregation__staleness="constant")
    tiny.same(hinge.params, constant.params)
    for kind in ("window", "eval", "interval", "final"):
        assert hinge.of(kind) == constant.of(kind)
    if any(any(w["staleness"]) for w in constant.of("window")):  # then another rule matters
        assert [w["loss"] for w in tiny.run(method).of("window")] != [w["loss"] for w in constant.of("window")]


@paced(ONCE)
def test_the_report_counts_what_the_records_say(method, computing):
    ran = tiny.run(method, **computing)
    windows, report = ran.of("window"), ran.report
    sent_at = [0] * 4  # the window after which each client was last sent a model
    taus = [[] for _ in range(4)]
    waited, rounds_s = [0.0] * 4, [[] for _ in range(4)]
    end_s = 0.0
    for number, window in enumerate(windows, start=1):
        assert window["window"] == number and window["start_s"] == end_s
        end_s = window["end_s"]
        for k, (client, tau, round_s) in enumerate(
            zip(window["arrivals"], window["staleness"], window["round_s"], strict=True)
        ):
            # dispatched again at a known moment, so staleness follows from arrivals alone
            assert tau == number - 1 - sent_at[client]
            taus[client].append(tau)
            rounds_s[client].append(round_s)
            closes = k == len(window["arrivals"]) - 1  # at its arrival, where a number of arrivals closes the window
            at_once = METHODS[method].window.dispatch == "on_arrival" and not closes
            sent_at[client] = number - 1 if at_once else number
        for client, waiting_s in zip(window["arrivals"], window["waiting_s"], strict=True):
            waited[client] += waiting_s
    assert report["windows"] == len(windows) and report["simulated_s"] == end_s
    assert report["client_updates"] == sum(map(len, taus))
    for client, entry in enumerate(report["clients"]):
        own = taus[client]
        assert entry["client"] == client and entry["updates"] == len(own)
        assert entry["staleness_mean"] == (pytest.approx(np.mean(own)) if own else None)
        assert entry["staleness_max"] == max(own, default=None)
        assert entry["round_s_mean"] == (pytest.approx(np.mean(rounds_s[client])) if own else None)
        assert entry["waiting_s"] == pytest.approx(waited[client])
    counts = [len(w["arrivals"]) for w in windows]
    stats = report["window_stats"]
    assert (stats["arrivals_min"], stats["arrivals_max"], stats["empty"]) == (min(counts), max(counts), counts.count(0))


@each_method_once
def test_computing_takes_the_time_of_a_full_model(method):
    """3 x the forward FLOP of all layers x samples, over the client's FLOP/s: at density 1 one for all methods."""
    simulation = tiny.simulation(method, **COMPUTING)
    forward = 2 * (784 * 12 + 12 * 10)
    if tiny.small_model(method):  # a tenth of Conv2's channels, as FedAvg counts them
        fedavg = tiny.simulation("fedavg", **tiny.small_model(method), **COMPUTING)
        forward = fedavg.costs(np.full(4, 100)).compute_s[0] * 8e5 / (3 * 2 * 10)
    costs = simulation.costs(np.full(4, 100))
    seconds, steps = costs.compute_s, costs.steps if costs.steps.any() else np.full(4, 2)  # FedProx's clients: own
    speeds = np.array(COMPUTING["clients__flop_s"])
    np.testing.assert_allclose(seconds, 3 * forward * steps * 10 / speeds)
    arrivals = [arrival for _ in range(6) for arrival in simulation.new_planner().take().window.arrivals]
    assert all(a.computed_s - a.downloaded_s == pytest.approx(seconds[a.client]) for a in arrivals)


@paced(MAIN)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(method, computing, tmp_path):
    whole, experiment = tiny.run(method, **computing), Experiment(tiny.config(method, **computing))
    for checks in (3, 4):  # the shortest run has eight
        with pytest.raises(Interrupted), mock.patch("prfl_jax.runtime.experiment.run_figure"):
            experiment.run(tmp_path, guard=tiny.StopAt(checks), progress=False)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        again = experiment.run(tmp_path, progress=False)
    assert comparable(again.report) == comparable(whole.report)
    tiny.same(again.params, whole.params)
