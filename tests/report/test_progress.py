"""Progress in a terminal and outside of one."""

from __future__ import annotations

import io
import os

import pytest

from prfl_jax.report import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(progress, windows, clock=None, host_s=1.0, **more):
    with progress:
        for window in range(1, windows + 1):
            if clock:
                clock.now += host_s
            progress.update(window, 14.0 * window, **more)


def test_a_log_gets_few_lines_with_everything_in_them():
    stream, clock = io.StringIO(), Clock()
    run(
        Progress(1000, stream=stream, clock=clock), 1000, clock,
        value=0.9214, arrivals_per_window=7.83, density_pct=[100, 50, 8],
    )  # fmt: skip
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[2].split("  ") == [
        " 30%", "window 300/1000", "4,200 s", "acc 92.1%", "arr 7.8", "density .08-1", "11 min 40 s left",
    ]  # fmt: skip
    assert lines[-1].startswith("100%  window 1000/1000  14,000 s")


def test_a_slow_run_gets_a_line_every_ten_minutes():
    stream, clock = io.StringIO(), Clock()
    run(Progress(1000, stream=stream, clock=clock), 50, clock, host_s=60.0)
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == [f"{number}/1000" for number in (10, 20, 30, 40, 50)]


def test_the_last_state_is_written_once():
    stream = io.StringIO()
    progress = Progress(1000, stream=stream)
    progress.update(3, 42.0)
    progress.close()
    progress.close()
    assert stream.getvalue() == "end   window 3/1000  42 s\n"


@pytest.mark.parametrize(
    ("windows", "horizon_s", "window", "simulated_s", "share"),
    [
        (100, None, 25, 900.0, 0.25),
        (None, 1000.0, 25, 900.0, 0.9),
        (100, 1000.0, 25, 900.0, 0.9),
        (100, 10_000.0, 25, 900.0, 0.25),
        (100, 1000.0, 25, 1010.0, 1.0),
        (None, None, 25, 900.0, 0.0),
        (0, 0.0, 0, 0.0, 0.0),
    ],
)
def test_the_share_done_is_the_larger_of_both(windows, horizon_s, window, simulated_s, share):
    assert Progress(windows, horizon_s, stream=io.StringIO()).share(window, simulated_s) == share


def test_the_horizon_drives_lines_and_time_left():
    stream, clock = io.StringIO(), Clock()
    run(Progress(None, 1400.0, stream=stream, clock=clock), 100, clock)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10 and lines[4] == " 50%  window 50  700 s  50.0 s left"


def test_a_resumed_run_estimates_from_what_it_did_itself():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(100, window=80, simulated_s=1120.0, stream=stream, clock=clock)
    clock.now = 5.0
    progress.update(90, 1260.0)
    assert stream.getvalue() == " 90%  window 90/100  1,260 s  5.0 s left\n"


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = Progress(200, stream=stream)
    progress.update(50, 700.0, value=0.5, arrivals_per_window=8, density_pct=[100, 100])
    progress.write("saved a checkpoint")
    progress.update(100, 1400.0, value=0.905, arrivals_per_window=8, density_pct=[8, 100])
    progress.close()
    progress.close()
    shown = stream.getvalue()
    assert "\r" in shown and "saved a checkpoint\n" in shown
    last = shown.rstrip().split("\r")[-1]
    assert "window 100/200  1,400 s  acc 90.5%  arr 8.0  ρ .08-1" in last
    assert "50%|" in last and "left" in last


def read_all(reader):
    """Everything written to the other, closed side of a pseudo-terminal."""
    parts = []
    while True:
        try:
            part = os.read(reader, 4096)
        except OSError:  # Linux says so that the other side is closed
            part = b""
        if not part:
            os.close(reader)
            return b"".join(parts)
        parts.append(part)


def test_the_longest_text_leaves_room_for_a_bar_in_80_columns():
    termios = pytest.importorskip("termios")
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 80))
    with open(writer, "w", encoding="utf-8") as stream:
        with Progress(10_000, stream=stream) as progress:
            progress.update(9_999, 139_986.0, value=0.905, arrivals_per_window=8, density_pct=[8, 100])
    shown = read_all(reader).decode()
    last = shown.rstrip().split("\r")[-1]
    assert len(last) <= 80 and "window 9999/10000  139,986 s" in last and last.endswith(" left")


def test_a_terminal_that_cannot_write_greek_gets_a_word():
    class Plain(Terminal):
        encoding = "ascii"

    stream = Plain()
    progress = Progress(200, stream=stream, bar=False)
    progress.update(100, 1400.0, density_pct=[100, 100])
    assert "density 1" in stream.getvalue() and stream.getvalue().isascii()


def test_messages_outside_a_terminal_are_lines():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress.write("resumed at window 5")
    assert stream.getvalue() == "resumed at window 5\n"
