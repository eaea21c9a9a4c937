"""Faults worked out by hand, one after another; files of traces; what a config may say of them.

All sizes are whole MB and all speeds simple fractions, so that times are exact.
"""

import math

import numpy as np
import pytest
from clock_cases import ALL, MB, arrivals, costs, network

from prfl_jax.clock import Costs, Faults, FaultyClock, Network, WindowRule, clock_from_config, faults_from_config
from prfl_jax.clock.draws import CLIENT_DOWN, CLIENT_UP, LogNormals
from prfl_jax.clock.faults import KINDS, FaultDraws
from prfl_jax.clock.traces import Presence, Trace
from prfl_jax.config.canonical import assign
from prfl_jax.config.cli import load_config
from prfl_jax.config.defaults import default_config
from prfl_jax.config.validate import validate
from prfl_jax.density import RunningDensities, make_density
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.system.errors import UserError

TWO = dict(down=[8, 8], up=[2, 2], compute=[1, 1])
ALWAYS = [(0.0, math.inf)]


def clock(faults, net=None, rule=ALL, sizes=None, transport="delta", seed=0):
    return FaultyClock(net or network([2.0, 1.0]), rule, transport, seed, costs(**(sizes or TWO)), faults)


def presence(*intervals):
    return Faults(presence=Presence(intervals))


def failures(window):
    return [(f.client, f.kind, f.ended_s) for f in window.failures]


def bytes_of(window):
    return tuple(count / MB for count in (window.bytes_down, window.bytes_client_down, window.bytes_up))


# --- what is drawn for a dispatch ---


def test_dropout_takes_the_model_and_nothing_else():
    window = clock(Faults(dropout=1.0)).next_window()
    assert not window.arrivals and window.end_s == 8.0  # the window waits for the slower download
    assert failures(window) == [(0, "dropout", 4.0), (1, "dropout", 8.0)]
    assert bytes_of(window) == (8, 16, 0)


def test_crash_ends_the_round_somewhere_in_the_computing():
    it = clock(Faults(crash=1.0))
    fates = FaultDraws(0, Faults(crash=1.0))
    for number in (0, 1):
        window = it.next_window()
        shares = [fates.of(client, number) for client in (0, 1)]
        assert all(kind == "crash" and 0 < share < 1 for kind, share in shares)
        start = window.start_s
        assert [one[2] for one in failures(window)] == [start + 4 + shares[0][1], start + 8 + shares[1][1]]
        assert bytes_of(window) == (8, 16, 0)


def test_lost_upload_spends_its_bytes():
    window = clock(Faults(lost_upload=1.0)).next_window()
    assert failures(window) == [(0, "lost_upload", 6.0), (1, "lost_upload", 11.0)]
    assert window.end_s == 11.0 and bytes_of(window) == (8, 16, 4)
    assert [f.bytes_up for f in window.failures] == [2 * MB, 2 * MB]


def test_repeated_upload_counts_once_and_takes_up_both_links():
    """A's copy waits for B's upload, which began first; A's second upload waits for A's copy, and then for B's."""
    net = network([2.0, 2.0], [8.0, 4.0], server_down=2.0)
    it = clock(Faults(repeated_upload=1.0), net, sizes=dict(down=[8, 8], up=[4, 4]))
    first, second = it.next_window(), it.next_window()
    assert arrivals(first) == [(0, 3.0), (1, 5.0)] and not first.repeats and bytes_of(first)[2] == 8
    # A's copy 5 to 7, B's copy 7 to 9, A's upload 9 to 11, B's 11 to 13
    copies = [(r.client, r.index, r.ended_s, r.bytes_up) for r in second.repeats]
    assert copies == [(0, 0, 7.0, 4 * MB), (1, 0, 9.0, 4 * MB)]
    assert arrivals(second) == [(0, 11.0), (1, 13.0)] and [a.computed_s for a in second.arrivals] == [6.0, 7.0]
    assert bytes_of(second)[2] == 16


def test_each_kind_has_its_own_draw_and_the_first_counts():
    def fates(**chances):
        drawn = FaultDraws(7, Faults(**chances))
        return [drawn.of(client, k)[0] for client in range(20) for k in range(100)]

    crash, both, all_four = fates(crash=0.3), fates(crash=0.3, dropout=0.2), fates(**dict.fromkeys(KINDS[:3], 0.2))
    assert sum(kind == "crash" for kind in crash) == pytest.approx(600, abs=80)
    assert all(now in ("dropout", before) for before, now in zip(crash, both, strict=True))
    assert all_four.count("lost_upload") == pytest.approx(2000 * 0.2 * 0.64, abs=60)
    assert fates() == [None] * 2000
    shares = [FaultDraws(7, Faults(crash=1.0)).of(client, 0)[1] for client in range(500)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert FaultDraws(7, Faults(crash=0.3)).of(3, 5) == FaultDraws(7, Faults(crash=0.3)).of(3, 5)


# --- coming and leaving ---


def test_leaving_during_a_download_stops_what_it_alone_needs():
    """0 takes 4 MB until 2 s, then 1 alone drives the stream, at 1 MB/s, until it leaves at 4 s."""
    sizes = dict(down=[4, 8], up=[2, 2], compute=[1, 1])
    window = clock(presence(ALWAYS, [(0.0, 4.0)]), sizes=sizes).next_window()
    assert arrivals(window) == [(0, 4.0)] and failures(window) == [(1, "left", 4.0)] and window.end_s == 4.0
    assert bytes_of(window) == (6, 8, 2)


def test_leaving_frees_the_link_for_the_others():
    """Both need all of the server's 1 MB/s; 0, the first in line, leaves at 2 s, and 1 goes on alone."""
    net = network([1.0, 1.0], server_up=1.0)
    window = clock(presence([(0.0, 2.0)], ALWAYS), net, transport="unicast").next_window()
    assert arrivals(window) == [(1, 2.0 + 8 + 1 + 2)] and bytes_of(window) == (2 + 8, 2 + 8, 2)


def test_leaving_in_the_middle_of_an_upload_keeps_the_bytes():
    window = clock(presence([(0.0, 5.5)], ALWAYS)).next_window()
    assert failures(window) == [(0, "left", 5.5)] and window.failures[0].bytes_up == MB
    assert arrivals(window) == [(1, 11.0)] and bytes_of(window) == (8, 16, 3)


def test_leaving_in_the_middle_of_a_second_copy_cuts_it():
    faults = Faults(repeated_upload=1.0, presence=Presence([[(0.0, 6.5)], ALWAYS]))
    window = clock(faults).next_window()
    assert arrivals(window) == [(0, 6.0), (1, 11.0)] and not window.failures
    assert [(r.client, r.ended_s, r.bytes_up) for r in window.repeats] == [(0, 6.5, MB)]


def test_a_round_that_fails_tells_what_was_received_and_what_not():
    """0 has its mask at 1 s, then takes 1 MB/s of the values until it leaves at 4.5 s; 1 has all, and crashes."""
    sizes = dict(down=[8, 8], up=[2, 2], mask=[1, 1], compute=[1, 1])
    faults = Faults(crash=1.0, presence=Presence([[(0.0, 4.5)], ALWAYS]))
    window = clock(faults, network([1.0, 4.0]), sizes=sizes, transport="unicast").next_window()
    told = [(f.client, f.kind, f.bytes_down / MB, f.bytes_missed / MB) for f in window.failures]
    assert told == [(1, "crash", 9, 0), (0, "left", 4.5, 4.5)] and window.bytes_client_down == 13.5 * MB


def test_what_arrives_at_the_very_end_of_a_stay_has_arrived():
    window = clock(presence([(0.0, 6.0)], [(0.0, 10.999)])).next_window()
    assert arrivals(window) == [(0, 6.0)] and failures(window) == [(1, "left", 10.999)]


def test_a_mask_that_was_not_received_is_sent_again():
    sizes = dict(down=[8], up=[2], mask=[1])
    net = network([1.0])
    early, later = (clock(presence([(0.0, t), (5.0, 1e9)]), net, sizes=sizes) for t in (0.5, 2.0))
    for it, again in ((early, 9), (later, 8)):
        assert it.next_window().failures
        assert it.next_window().dispatches[0].bytes_down == again * MB


def test_returning_clients_are_dispatched_at_the_next_start():
    there = presence(ALWAYS, [(0.0, 4.0), (9.0, 1e9)])
    it = clock(there)
    starts = [[(d.client, d.time_s) for d in it.next_window().dispatches] for _ in range(3)]
    assert starts == [[(0, 0.0), (1, 0.0)], [(0, 6.0)], [(0, 12.0), (1, 12.0)]]
    it = clock(there, rule=WindowRule("k_arrivals", k=3, dispatch="on_arrival"))
    window = it.next_window()
    assert [(d.client, d.time_s) for d in window.dispatches] == [(0, 0.0), (1, 0.0), (0, 6.0), (1, 9.0), (0, 12.0)]
    assert arrivals(window) == [(0, 6.0), (0, 12.0), (0, 18.0)]
    # 1 joined the stream of the same version, and took from the buffer what was there
    assert it.next_window().arrivals[0][:2] == (1, 1)


def test_failed_clients_are_dispatched_at_once_on_arrival():
    faults, first_two = Faults(dropout=0.5), ["dropout", None]
    seed = next(s for s in range(99) if [FaultDraws(s, faults).of(0, k)[0] for k in (0, 1)] == first_two)
    rule, sizes = WindowRule("each_arrival", dispatch="on_arrival"), dict(down=[8], up=[2], compute=[1])
    window = clock(faults, network([2.0]), rule, sizes, seed=seed).next_window()
    assert [(d.time_s, d.on_arrival) for d in window.dispatches] == [(0.0, False), (4.0, True)]
    assert failures(window) == [(0, "dropout", 4.0)]
    # the second dispatch finds its model in the buffer, and still takes it at its own rate
    assert arrivals(window) == [(0, 4.0 + 4 + 1 + 1)]


def test_a_window_opens_when_somebody_is_there():
    it = clock(presence([(5.0, 1e9)], [(7.0, 1e9)]))
    first, second = it.next_window(), it.next_window()
    assert (first.start_s, first.end_s) == (0.0, 11.0)
    assert [(d.client, d.time_s, d.on_arrival) for d in first.dispatches] == [(0, 5.0, False)]
    assert [(d.client, d.time_s) for d in second.dispatches] == [(0, 11.0), (1, 11.0)]


def test_fixed_windows_may_be_empty_but_the_first_waits():
    it = clock(presence([(0.0, 7.0), (16.0, 1e9)], [(0.0, 8.0)]), rule=WindowRule("fixed", dt_s=5.0))
    windows = [it.next_window() for _ in range(4)]
    assert [w.end_s for w in windows] == [8.0, 13.0, 18.0, 23.0]  # 1 leaves at 8 s without an update
    assert [len(w.dispatches) for w in windows] == [2, 0, 0, 1] and windows[0].arrivals[0].client == 0


def test_a_cohort_is_drawn_among_those_that_are_there():
    net, none = network([2.0] * 6), [(1e6, 2e6)]
    it = clock(
        presence(ALWAYS, none, ALWAYS, none, none, [(0.0, 30.0)]), net, WindowRule("all", cohort=3), dict(down=[8] * 6)
    )
    drawn = [[d.client for d in it.next_window().dispatches] for _ in range(12)]
    assert drawn[0] == [0, 2, 5] and drawn[-1] == [0, 2]
    rule = WindowRule("k_arrivals", k=4, dispatch="on_arrival", cohort=2)
    it = clock(presence(none, ALWAYS, [(20.0, 1e9)]), network([2.0] * 3), rule, dict(down=[8] * 3, up=[2] * 3))
    times = [(d.client, d.time_s) for _ in range(3) for d in it.next_window().dispatches]
    assert times[:4] == [(1, 0.0), (1, 5.0), (1, 10.0), (1, 15.0)] and (2, 20.0) in times


def test_a_window_closes_where_nobody_else_can_arrive():
    it = clock(presence([(0.0, 7.0)], ALWAYS), rule=WindowRule("k_arrivals", k=2))
    first, second = it.next_window(), it.next_window()
    assert (first.end_s, len(first.arrivals)) == (11.0, 2)
    assert (second.end_s, len(second.arrivals)) == (22.0, 1)
    it = clock(Faults(dropout=1.0), rule=WindowRule("each_arrival"))
    assert [it.next_window().end_s for _ in range(2)] == [8.0, 16.0]


def test_a_round_of_no_time_does_not_go_on_for_ever():
    rule = WindowRule("each_arrival", dispatch="on_arrival")
    with pytest.raises(UserError, match="takes 0 s"):
        clock(Faults(dropout=1.0), network([2.0]), rule, dict(down=[0], up=[2])).next_window()


# --- deadlines ---

DEADLINE = WindowRule("deadline", deadline_share=0.6, deadline_factor=1.5, first_waits_for_all=False)
THREE = dict(down=[8, 8, 8], up=[2, 2, 2], compute=[1, 1, 1])


def test_who_is_late_is_cut_off_and_dispatched_again():
    """Two of three (60 %, rounded up) are in after 11 s, so the deadline is 16.5 s."""
    it = clock(Faults(), network([2.0, 1.0, 0.1]), DEADLINE, THREE, "unicast")
    for start in (0.0, 16.5):
        window = it.next_window()
        assert arrivals(window) == [(0, start + 6), (1, start + 11)] and window.waiting_s == (10.5, 5.5)
        assert failures(window) == [(2, "late", start + 16.5)] and window.end_s == start + 16.5
        assert [d.client for d in window.dispatches] == [0, 1, 2]
        assert bytes_of(window) == (16 + 1.65, 16 + 1.65, 4)


def test_a_deadline_ends_where_all_are_in_or_have_failed():
    it = clock(Faults(), network([2.0, 1.0, 0.9]), DEADLINE, THREE)
    window = it.next_window()
    assert window.end_s == 8 / 0.9 + 1 + 2 / 0.9 and not window.failures  # before 16.5 s
    it = clock(presence(ALWAYS, ALWAYS, [(0.0, 12.0)]), network([2.0, 1.0, 0.1]), DEADLINE, THREE)
    assert it.next_window().end_s == 12.0
    it = clock(presence(ALWAYS, [(0.0, 1.0)], [(0.0, 30.0)]), network([2.0, 1.0, 0.1]), DEADLINE, THREE)
    assert failures(it.next_window()) == [(1, "left", 1.0), (2, "left", 30.0)]  # the share is never reached


def test_a_copy_that_ends_as_others_are_cut_off_is_told_of():
    """So late that two times differ by 0.1 ms at least, in which a copy of 400 bytes passes the link that is free."""
    begin = 2.0**39
    traces = {0: Trace([0.0, begin + 1.0], [400.0, 8e6]), 1: Trace([0.0], [8e6])}
    faults = Faults(repeated_upload=1.0, presence=Presence([[(begin, math.inf)]] * 2), up=traces)
    rule = WindowRule("deadline", deadline_share=0.5, deadline_factor=2.0, first_waits_for_all=False)
    sizes = dict(down=[0, 0], up=[400 / MB, 100], compute=[0, 0.5])
    window = clock(faults, network([8.0, 8.0], server_down=8.0), rule, sizes).next_window()
    assert arrivals(window) == [(0, begin + 1)] and window.end_s == begin + 2
    assert failures(window) == [(1, "late", begin + 2)]
    assert [(r.client, r.ended_s, r.bytes_up) for r in window.repeats] == [(0, begin + 2, 400)]


def test_a_share_counts_whole_clients():
    for clients, share, need in ((20, 0.85, 17), (10, 0.85, 9), (10, 0.3, 3), (3, 0.01, 1)):
        rule = WindowRule("deadline", deadline_share=share, deadline_factor=1.0, first_waits_for_all=False)
        net = network([1.0 / (1 + i) for i in range(clients)])
        window = clock(Faults(), net, rule, dict(down=[0] * clients, up=[1] * clients)).next_window()
        assert len(window.arrivals) == need and len(window.failures) == clients - need


def test_a_share_is_of_those_whose_round_has_not_failed():
    """Nine alike and one that is 100 times slower: with two dropouts 7 of the 8 left make 85 %, not 9 of 10."""
    faults, rule = Faults(dropout=0.2), WindowRule("deadline", first_waits_for_all=False)
    fates = [None] * 7 + ["dropout"] * 2 + [None]
    seed = next(s for s in range(10**5) if [FaultDraws(s, faults).of(i, 0)[0] for i in range(10)] == fates)
    net, sizes = network([1.0] * 9 + [0.01]), dict(down=[8] * 10, up=[2] * 10, compute=[1] * 10)
    window = clock(faults, net, rule, sizes, seed=seed).next_window()
    assert arrivals(window) == [(i, 11.0) for i in range(7)] and window.end_s == 16.5
    assert failures(window) == [(7, "dropout", 8.0), (8, "dropout", 8.0), (9, "late", 16.5)]


def test_a_failure_may_be_what_sets_a_deadline():
    """Half of four are two, and of the three left at 7 s, too; of the two left at 8 s it is one, who is in."""
    there = presence(ALWAYS, [(0.0, 7.0)], [(0.0, 8.0)], ALWAYS)
    rule = WindowRule("deadline", deadline_share=0.5, deadline_factor=1.5, first_waits_for_all=False)
    sizes = dict(down=[8] * 4, up=[2] * 4, compute=[1] * 4)
    window = clock(there, network([2.0, 1.0, 0.5, 0.01]), rule, sizes, "unicast").next_window()
    assert arrivals(window) == [(0, 6.0)] and window.end_s == 12.0
    assert failures(window) == [(1, "left", 7.0), (2, "left", 8.0), (3, "late", 12.0)]


def test_a_deadline_may_let_the_first_window_wait_for_all():
    rule = WindowRule("deadline", deadline_share=0.6, first_waits_for_all=True)
    it = clock(Faults(), network([2.0, 1.0, 0.1]), rule, THREE)
    assert len(it.next_window().arrivals) == 3 and len(it.next_window().arrivals) == 2


def test_a_deadline_is_for_whoever_waits_for_the_end():
    with pytest.raises(UserError, match="window.dispatch"):
        WindowRule("deadline", dispatch="on_arrival")
    for bad in (dict(deadline_share=0.0), dict(deadline_share=1.1), dict(deadline_factor=0.9)):
        with pytest.raises(UserError, match="window.deadline"):
            WindowRule("deadline", **bad)


# --- traces ---


def test_a_transfer_takes_exactly_as_long_as_through_the_trace():
    """1 MB/s for 2 s, 3 MB/s until 5 s, then 2: 8 MB take 4 s; the 7 MB up 1 s at 3 MB/s and 2 s at 2."""
    trace = Trace([0.0, 2.0, 5.0], [1e6, 3e6, 2e6])
    sizes = dict(down=[7], mask=[1], up=[7])
    window = clock(Faults(up={0: trace}, down={0: trace}), network([9.0]), sizes=sizes).next_window()
    (a,) = window.arrivals
    assert (a.downloaded_s, a.arrived_s) == (4.0, 7.0)


def test_a_trace_keeps_its_first_and_last_values_outside_it():
    trace = Trace([3.0, 4.0], [2.0, 5.0])
    assert trace.rate(0.0, 6.0) == 2.0 and trace.rate(0.0, 8.0) == 2.0 and trace.rate(9.0, 1e9) == 5.0
    assert trace.rate(1.0, 11.0) == pytest.approx(11 / 4)  # 6 by 4 s, and 5 more
    assert trace.rate(0.0, 0.0) == 2.0


def test_random_factors_multiply_a_trace():
    net = Network((9.0,), (9.0,), 1024.0, 1024.0, client_sigma=0.3, server_sigma=0.0)
    trace = Trace([0.0, 2.0], [1e6, 3e6])
    it = FaultyClock(net, ALL, "delta", 5, costs(down=[8], up=[4]), Faults(up={0: trace}, down={0: trace}))
    (a,) = it.next_window().arrivals
    down, up = (LogNormals(5, purpose, 0.3).factor(0, 0) for purpose in (CLIENT_DOWN, CLIENT_UP))
    assert a.downloaded_s == pytest.approx(2 + (8 - 2 * down) / (3 * down))
    assert a.arrived_s - a.downloaded_s == pytest.approx(4 / (3 * up))


def write(path, text):
    path.write_text(text)
    return str(path)


def config(tmp_path=None, **changes):
    c = default_config()
    for key, value in changes.items():
        if key in ("faults__availability", "faults__bandwidth"):
            value = write(tmp_path / f"{key}.csv", value)
        assign(c, key.replace("__", "."), value)
    return c


def test_files_and_settings_by_client_become_presence_and_traces(tmp_path):
    c = config(
        tmp_path,
        faults__availability="client, from, to\n3,0,5\n\n3,10,20\n3,15,30\n1,4,6\n",
        faults__bandwidth="client,time,up,down\n2,5,2,4\n2,0,1,3\n",
        faults__join_s=(0.0, 5.0),
        faults__leave_s=(1e9,) * 9 + (40.0,),
    )
    validate(c)
    faults = faults_from_config(c)
    assert faults.up.keys() == {2} == faults.down.keys()
    assert faults.up[2].rate(0.0, 7e6) == 1e6 * 7 / 6 and faults.down[2].rate(9.0, 1.0) == 4e6
    there = [[t for t in range(50) if faults.there(client, float(t))] for client in range(10)]
    assert there[0] == list(range(50)) and there[1] == [5] and there[9] == list(range(5, 40))
    assert there[3] == [*range(10, 30)] and there[5] == list(range(5, 50))
    assert faults_from_config(default_config()) == Faults() and not Faults().any


BAD_FILES = [
    ("availability", "", "line 1 is 'empty': allowed is a CSV file whose first line is client,from,to"),
    ("availability", "client,from\n", "line 1 is 'client,from'"),
    ("availability", "client,from,to\n1,2\n", "line 2: '1,2': allowed are 3 numbers, client,from,to"),
    ("availability", "client,from,to\n1,2,3\nx,2,3\n", "line 3: 'x,2,3'"),
    ("availability", "client,from,to\n10,2,3\n", "line 2: client=10: allowed is a client's number from 0 to 9"),
    ("availability", "client,from,to\n1,3,3\n", "line 2: to=3: allowed is more than from=3"),
    ("availability", "client,from,to\n1,-3,3\n", "line 2: from=-3: allowed is a number from 0"),
    ("availability", "client,from,to\n1,nan,3\n", "line 2: from=nan"),
    ("bandwidth", "client,time,up,down\n\n1,0,1,0\n", "line 3: down=0: allowed is a number from 0.0001"),
    ("bandwidth", "client,time,up,down\n1,0,inf,1\n", "line 2: up=inf"),
    ("bandwidth", "client,time,up,down\n1,0,1,1\n1,0,2,2\n", "line 3: client 1 has time 0 twice"),
    ("bandwidth", "client,time,up,down\n1,0,1,1,1\n", "line 2: '1,0,1,1,1'"),
]


@pytest.mark.parametrize(("key", "text", "said"), BAD_FILES)
def test_a_bad_file_is_refused_with_file_and_line(tmp_path, key, text, said):
    c = config(tmp_path, **{f"faults__{key}": text})
    with pytest.raises(UserError) as info:
        faults_from_config(c)
    assert said in str(info.value) and f"config.faults.{key}=" in str(info.value) and "\n" not in str(info.value)


def test_a_missing_file_is_refused(tmp_path):
    c = default_config()
    c.faults.bandwidth = str(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"config.faults.bandwidth=.*none.csv.*cannot be read .No such file"):
        faults_from_config(c)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    c.faults.bandwidth = str(tmp_path / "bytes.csv")
    with pytest.raises(UserError, match="cannot be read"):
        faults_from_config(c)


def test_who_leaves_before_it_joins_is_refused():
    with pytest.raises(UserError, match=r"config.faults.leave_s=\(5.0,\): allowed is after faults.join_s: client 1"):
        validate(config(faults__join_s=(0.0, 5.0), faults__leave_s=(5.0,)))
    with pytest.raises(UserError, match="config.faults.join_s.*divisor"):
        validate(config(faults__join_s=(0.0,) * 3))
    with pytest.raises(UserError, match="config.window.dispatch='on_arrival'.*window.close='deadline'"):
        validate(config(window__close="deadline", window__dispatch="on_arrival"))


# --- what follows from it elsewhere ---


def test_a_config_without_faults_has_the_plain_clock():
    c = default_config()
    flat = np.full(10, 10**6)
    sizes = Costs(flat, 0 * flat, flat, np.zeros(10), flat)
    assert not clock_from_config(c, sizes).cuts_off
    for changes in (dict(faults__crash=0.1), dict(faults__leave_s=(5.0,)), dict(window__close="deadline")):
        made = clock_from_config(config(**changes), sizes)
        assert made.cuts_off
        state = made.to_state()
        assert clock_from_config(config(**changes), state).to_state() == state


def test_clients_without_a_round_time_keep_density_1():
    """In the first window client 1, which is slow, fails: no policy knows its time."""
    net, sizes = network([8.0, 1.0, 2.0]), dict(down=[8] * 3, up=[8] * 3)
    for name in ("full", "time_balance", "recovery", "tiers", "tiers_recovery"):
        c = config(density__name=name, density__interval=1, density__rule="literal").density
        policy = make_density(c, 3)
        it = clock(presence(ALWAYS, [(0.0, 3.0), (7.0, 1e9)], ALWAYS), net, WindowRule("all"), sizes)
        running, seen = RunningDensities(), []
        for _ in range(3):
            window = it.next_window()
            policy.observe(window.arrivals, running.take(window, policy.density_pct))
            if policy.decides_after(window.index):
                seen.append(policy.decide().density_pct.tolist())
        if name == "full":  # it decides nothing
            assert not seen and policy.density_pct.tolist() == [100] * 3
            continue
        expected = {"time_balance": [[100, 100, 25], [100, 13, 25]], "tiers": [[100, 100, 25], [100, 13, 25]]}
        expected["recovery"], expected["tiers_recovery"] = expected["time_balance"], expected["tiers"]
        assert [seen[0], seen[-1]] == expected[name]
        assert not running._density_pct


def test_tiers_of_a_window_in_which_all_failed():
    policy = make_density(config(density__name="tiers").density, 2)
    assert policy.decide().density_pct.tolist() == [100, 100]
    twin = make_density(config(density__name="tiers").density, 2)
    twin.from_state(policy.to_state())
    assert twin.to_state() == policy.to_state()
    twin.from_state({**policy.to_state(), "given": True})  # as it was saved before
    assert twin._given.all()


def test_the_clock_alone_counts_faults():
    c = load_config("configs/table3_fedasyn.py")
    assert "faults" not in run_clock(c, 5)
    c = load_config("configs/table3_fedasyn.py", {"faults.dropout": 0.2, "faults.repeated_upload": 0.2})
    result = run_clock(c, 100)
    assert set(result["faults"]) == set(KINDS) and all(len(by) == 10 for by in result["faults"].values())
    rounds = sum(result["updates"]) + sum(result["faults"]["dropout"])
    assert sum(result["faults"]["dropout"]) == pytest.approx(0.2 * rounds, rel=0.3)
    assert sum(result["faults"]["repeated_upload"]) == pytest.approx(0.2 * 0.8 * rounds, rel=0.3)
    assert not any(result["faults"]["crash"])
