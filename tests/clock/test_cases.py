"""Cases worked out by hand: every close rule, dispatch rule and transport, with and without contention.

All sizes are whole MB and all speeds powers of two where times are compared exactly.
"""

import dataclasses

import pytest
from clock_cases import ALL, MB, arrivals, costs, network

from prfl_jax.clock import Clock, Network, WindowRule
from prfl_jax.system.errors import UserError

# --- one client's round ---


def test_round_is_mask_download_compute_upload():
    net = network([2.0], [4.0])
    clock = Clock(net, ALL, "delta", 0, costs([8], up=[6], mask=[1], compute=[0.5]))
    window = clock.next_window()
    (a,) = window.arrivals
    assert (a.dispatched_s, a.downloaded_s, a.computed_s, a.arrived_s) == (0.0, 2.25, 2.75, 5.75)
    assert a.round_s == 5.75 and window.end_s == 5.75 and clock.time_s == 5.75
    assert (window.bytes_down, window.bytes_client_down, window.bytes_up) == (9 * MB, 9 * MB, 6 * MB)
    window = clock.next_window()  # the mask was sent: values only from now on
    assert window.arrivals[0].round_s == 5.5 and window.bytes_down == 8 * MB
    clock.set_costs(costs([4], up=[6], mask=[1], compute=[0.5]))  # a new generation of masks
    window = clock.next_window()
    assert window.arrivals[0].round_s == 4.75 and window.bytes_down == 5 * MB


def test_prefix_takes_size_over_the_slower_of_client_and_server():
    for server, end in ((1.0, 8.0), (4.0, 4.0)):
        clock = Clock(network([2.0], server_up=server), ALL, "delta", 0, costs([8]))
        assert clock.next_window().end_s == end


@pytest.mark.parametrize("contention", [True, False])
def test_nothing_to_do_takes_no_time(contention):
    clock = Clock(network([2.0, 2.0], contention=contention), ALL, "delta", 0, costs([0, 0]))
    for number in (1, 2, 3):
        window = clock.next_window()
        assert window.index == number and window.end_s == 0.0 and arrivals(window) == [(0, 0.0), (1, 0.0)]


# --- transports ---

THREE = dict(down=[1.0, 0.66, 0.33], group=[100, 66, 33])


@pytest.mark.parametrize(
    ("transport", "sent"), [("delta", 1.0), ("distinct", 1.99), ("one_copy", 1.0), ("unicast", 1.99)]
)
def test_paper_example_of_the_split(transport, sent):
    """Section III-D: densities 1, .66, .33 cost 1.99 models as distinct sub-models and 1 with the split."""
    window = Clock(network([1.0] * 3), ALL, transport, 0, costs(**THREE)).next_window()
    assert window.bytes_down == round(sent * MB)
    assert window.bytes_client_down == round(1.99 * MB)


def test_equal_sub_models_are_one_stream_unless_unicast():
    down, group = [8, 8, 4], [100, 100, 50]
    sent = {
        name: Clock(network([4.0] * 3), ALL, name, 0, costs(down, group=group)).next_window().bytes_down
        for name in ("delta", "distinct", "unicast")
    }
    assert sent == {"delta": 8 * MB, "distinct": 12 * MB, "unicast": 20 * MB}


def test_distinct_sends_the_smallest_first():
    net = network([8.0, 8.0], server_up=4.0)
    window = Clock(net, ALL, "distinct", 0, costs([8, 4], group=[100, 50])).next_window()
    assert arrivals(window) == [(1, 1.0), (0, 3.0)]


def test_unicast_sends_to_the_first_client_first():
    net = network([8.0, 8.0], server_up=4.0)
    window = Clock(net, ALL, "unicast", 0, costs([8, 4])).next_window()
    assert arrivals(window) == [(0, 2.0), (1, 3.0)]


def test_a_slow_client_downloads_while_the_server_continues():
    # The server sends 8 MB within 2 s for the fast client; the slow one needs 8 s for the same bytes.
    net = network([4.0, 1.0], server_up=4.0)
    clock = Clock(net, WindowRule("fixed", dt_s=1.0, first_waits_for_all=False), "delta", 0, costs([8, 8]))
    windows = [clock.next_window() for _ in range(8)]
    assert [window.bytes_down for window in windows[:3]] == [4 * MB] * 3  # the fast one comes again at 2
    assert windows[0].bytes_client_down == 5 * MB
    assert (1, 8.0) in arrivals(windows[7])


def test_catching_up_behind_a_slow_beginning():
    """The frontier is slow while another stream is served, then fast: the client is late by the burst."""
    # Unicast, 5 MB/s: client 0 (rate 4, 8 MB) leaves 1 MB/s for client 1 (rate 2, 8 MB) until t = 2.
    net = network([4.0, 2.0], server_up=5.0)
    window = Clock(net, ALL, "unicast", 0, costs([8, 8])).next_window()
    assert arrivals(window) == [(0, 2.0), (1, 5.0)]  # 2 MB by t = 2, then 6 MB at 2 MB/s


def test_masks_go_before_values_and_values_wait_in_the_buffer():
    # 2 MB/s server: mask of client 0 (2 MB) until 1, values (4 MB) until 3; client 1 has no mask.
    net = network([2.0, 2.0], server_up=2.0)
    window = Clock(net, ALL, "delta", 0, costs([4, 4], mask=[2, 0])).next_window()
    assert arrivals(window) == [(0, 3.0), (1, 3.0)]
    # With 4 MB/s the values are sent meanwhile (until 2): client 0 takes them from 1 on, at its own 2 MB/s.
    net = network([2.0, 2.0], server_up=4.0)
    window = Clock(net, ALL, "delta", 0, costs([4, 4], mask=[2, 0])).next_window()
    assert arrivals(window) == [(1, 2.0), (0, 3.0)]


def test_extension_sends_only_what_is_not_in_the_buffer():
    # Client 0 (1 s) comes back at once and is sent the same version again: 0 bytes. Client 1 takes 4 s.
    rule = WindowRule("fixed", dt_s=8.0, first_waits_for_all=False, dispatch="on_arrival")
    window = Clock(network([4.0, 4.0]), rule, "delta", 0, costs([2, 8], up=[2, 8])).next_window()
    assert arrivals(window)[:4] == [(0, 1.0), (0, 2.0), (0, 3.0), (0, 4.0)]
    assert window.bytes_down == 8 * MB
    # A client that joins the version later and needs more: only the rest is sent.
    rule = WindowRule("each_arrival", dispatch="on_arrival")
    clock = Clock(network([4.0, 4.0]), rule, "delta", 0, costs([4, 8], up=[4, 8]))
    windows = [clock.next_window() for _ in range(3)]
    assert [arrivals(window) for window in windows] == [[(0, 2.0)], [(0, 4.0)], [(1, 4.0)]]
    assert [window.bytes_down for window in windows] == [8 * MB, 4 * MB, 0]


# --- contention ---


def test_upload_priority_and_its_absence():
    # Server receives 3 MB/s; both upload 6 MB at 2 MB/s from t = 0.
    net = network([2.0, 2.0], [1024.0, 1024.0], server_down=3.0)
    window = Clock(net, ALL, "delta", 0, costs([0, 0], up=[6, 6])).next_window()
    assert arrivals(window) == [(0, 3.0), (1, 4.5)]  # 3 MB by t = 3, the other 3 MB at 2 MB/s
    net = dataclasses.replace(net, contention=False)
    window = Clock(net, ALL, "delta", 0, costs([0, 0], up=[6, 6])).next_window()
    assert arrivals(window) == [(0, 3.0), (1, 3.0)]
    net = dataclasses.replace(net, server_down=1.0)  # the server's rate still bounds each stream
    window = Clock(net, ALL, "delta", 0, costs([0, 0], up=[6, 6])).next_window()
    assert arrivals(window) == [(0, 6.0), (1, 6.0)]


def test_earlier_upload_keeps_its_place():
    # Client 1 begins at 0, client 0 at 1: client 1 stays first although its id is larger.
    net = network([2.0, 2.0], server_down=2.0)
    window = Clock(net, ALL, "delta", 0, costs([0, 0], up=[4, 4], compute=[1.0, 0.0])).next_window()
    assert arrivals(window) == [(1, 2.0), (0, 4.0)]


def test_starved_zero_byte_upload_arrives_at_once():
    net = network([2.0, 2.0], server_down=2.0)
    window = Clock(net, ALL, "delta", 0, costs([0, 0], up=[4, 0])).next_window()
    assert arrivals(window) == [(1, 0.0), (0, 2.0)]


# --- windows ---

# Rounds of 1, 2 and 4 s (upload only).
ROUNDS = costs([0, 0, 0], up=[4, 4, 4])
SPEEDS = network([4.0, 2.0, 1.0])


def ends(rule, windows, net=SPEEDS, cost=ROUNDS):
    clock = Clock(net, rule, "delta", 0, cost)
    got = [clock.next_window() for _ in range(windows)]
    return [window.end_s for window in got], [[a.client for a in window.arrivals] for window in got]


def test_fixed_windows():
    times, who = ends(WindowRule("fixed", dt_s=0.75, first_waits_for_all=False), 6)
    assert times == [0.75, 1.5, 2.25, 3.0, 3.75, 4.5]
    # Client 0 arrives at 1, waits until 1.5, arrives at 2.5, waits until 3, arrives at 4; client 1 at 2 and 4.25.
    assert who == [[], [0], [1], [0], [], [0, 2, 1]]


def test_arrival_at_the_close_belongs_to_the_window():
    times, who = ends(WindowRule("fixed", dt_s=1.0, first_waits_for_all=False), 4)
    assert who == [[0], [0, 1], [0], [0, 1, 2]]


def test_first_window_waits_for_all():
    times, who = ends(WindowRule("fixed", dt_s=1.0, first_waits_for_all=True), 3)
    assert times == [4.0, 5.0, 6.0] and who == [[0, 1, 2], [0], [0, 1]]
    times, who = ends(WindowRule("fixed", dt_s=1.0, first_waits_for_all=True, dispatch="on_arrival"), 2)
    assert times == [4.0, 5.0]
    assert who == [[0, 0, 1, 0, 0, 1, 2], [0]]


def test_all():
    assert ends(ALL, 3) == ([4.0, 8.0, 12.0], [[0, 1, 2]] * 3)


def test_k_arrivals():
    times, who = ends(WindowRule("k_arrivals", k=2), 4)
    # 0 at 1, 1 at 2 | both again at 2: 0 at 3, then 1 at 4 | 2 at 4, a tie with the close, and 0 at 5 | 0 and 1 at 6.
    assert times == [2.0, 4.0, 5.0, 6.0] and who == [[0, 1], [0, 1], [2, 0], [0, 1]]


def test_each_arrival():
    times, who = ends(WindowRule("each_arrival"), 8)
    assert times == [1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 4.0, 5.0] and who == [[0], [0], [1], [0], [0], [1], [2], [0]]


def test_on_arrival_gets_the_last_closed_version():
    clock = Clock(SPEEDS, WindowRule("k_arrivals", k=3, dispatch="on_arrival"), "delta", 0, ROUNDS)
    first, second = clock.next_window(), clock.next_window()
    # 0 at 1, then 0 at 2 get version 0 at once; 1 at 2, after it by its id, closes the window and gets version 1.
    assert first.end_s == 2.0 and [a.client for a in first.arrivals] == [0, 0, 1]
    assert [(d.client, d.index, d.version, d.on_arrival) for d in first.dispatches] == [
        (0, 0, 0, False), (1, 0, 0, False), (2, 0, 0, False), (0, 1, 0, True), (0, 2, 0, True)
    ]  # fmt: skip
    assert [(d.client, d.index, d.version, d.time_s) for d in second.dispatches][:1] == [(1, 1, 1, 2.0)]


def test_fixed_on_arrival_at_the_close_gets_the_new_version():
    rule = WindowRule("fixed", dt_s=1.0, first_waits_for_all=False, dispatch="on_arrival")
    clock = Clock(SPEEDS, rule, "delta", 0, ROUNDS)
    first, second = clock.next_window(), clock.next_window()
    assert len(first.dispatches) == 3
    assert second.dispatches[0] == first.dispatches[0]._replace(index=1, version=1, time_s=1.0)


def test_release_windows():
    # Two windows wait for all; then at least 1.5 s, stretched to the second client's arrival.
    times, who = ends(WindowRule("release", release_min_s=1.5), 4)
    assert times == [4.0, 8.0, 10.0, 12.0]
    assert who == [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2]]
    # 16 MB at 8 MB/s + 0.1 s is longer than the minimum; everybody has arrived by then.
    net = network([64.0, 64.0], server_up=8.0)
    times, _ = ends(WindowRule("release", release_min_s=0.5), 3, net, costs([16, 16]))
    assert times == [2.0, 4.0, 4.0 + (2.0 + 0.1)]
    # A single client: the window stretches to its arrival.
    times, _ = ends(WindowRule("release", release_min_s=0.5), 3, network([1.0]), costs([0], up=[4]))
    assert times == [4.0, 8.0, 12.0]


def test_waiting_is_from_arrival_to_close():
    clock = Clock(SPEEDS, WindowRule("fixed", dt_s=3.0, first_waits_for_all=False), "delta", 0, ROUNDS)
    first, second = clock.next_window(), clock.next_window()
    assert first.waiting_s == (2.0, 1.0)
    assert [a.client for a in second.arrivals] == [0, 2, 1] and second.waiting_s == (2.0, 2.0, 1.0)
    on_arrival = WindowRule("fixed", dt_s=3.0, first_waits_for_all=False, dispatch="on_arrival")
    assert set(Clock(SPEEDS, on_arrival, "delta", 0, ROUNDS).next_window().waiting_s) == {0.0}


def test_ties_break_by_client_id():
    clock = Clock(network([2.0] * 5), WindowRule("each_arrival"), "unicast", 0, costs([4] * 5, up=[4] * 5))
    windows = [clock.next_window() for _ in range(6)]
    assert [arrivals(window) for window in windows[:5]] == [[(i, 4.0)] for i in range(5)]
    assert [[d.client for d in window.dispatches] for window in windows[1:]] == [[i] for i in range(5)]
    clock = Clock(network([2.0] * 5), ALL, "unicast", 0, costs([4] * 5, up=[4] * 5))
    assert arrivals(clock.next_window()) == [(i, 4.0) for i in range(5)]
    assert [d.client for d in clock.next_window().dispatches] == [0, 1, 2, 3, 4]


# --- mistakes ---


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WindowRule("all", dispatch="on_arrival"), "window.dispatch"),
        (lambda: WindowRule("sometimes"), "sometimes"),
        (lambda: WindowRule(dispatch="never"), "never"),
        (lambda: WindowRule("fixed", dt_s=0.0), "window.dt_s"),
        (lambda: WindowRule("k_arrivals", k=0), "window.k"),
        (lambda: WindowRule("release", release_min_s=-1.0), "window.release_min_s"),
        (lambda: network([1.0, -1.0]), "clients.up_mb_s"),
        (lambda: network([1.0], [1.0, 2.0]), "one for each client"),
        (lambda: network([1.0], server_up=float("inf")), "server.up_mb_s"),
        (lambda: Network((1.0,), (1.0,), 1.0, 1.0, client_sigma=-0.1), "clients.sigma"),
        (lambda: Clock(SPEEDS, WindowRule("k_arrivals", k=4), "delta", 0, ROUNDS), "window.k"),
        (lambda: Clock(SPEEDS, ALL, "pigeon", 0, ROUNDS), "transport.name"),
    ],
)
def test_mistakes_name_the_key(make, says):
    with pytest.raises(UserError, match=says):
        make()


def test_endless_rounds_are_refused():
    rule = WindowRule("fixed", dt_s=1.0, first_waits_for_all=False, dispatch="on_arrival")
    with pytest.raises(UserError, match="client 1"):
        Clock(network([1.0, 1.0]), rule, "delta", 0, costs([0, 0], up=[1, 0])).next_window()


def test_costs_are_checked():
    with pytest.raises(ValueError, match="up_bytes"):
        costs([1, 2], up=[1])
    with pytest.raises(ValueError, match="negative"):
        costs([1, 2], up=[1, -1])
    with pytest.raises(ValueError, match="3"):
        Clock(SPEEDS, ALL, "delta", 0, costs([1, 2]))
