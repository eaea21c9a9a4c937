"""Reads recorded networks from CSV files: link speeds over time, and the times at which clients are available."""

from __future__ import annotations

import bisect
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prfl_jax.system.errors import UserError

_MB = 1e6
_SPEEDS = (1e-4, 1e9)  # MB/s, as `clients.up_mb_s`
_LATEST_S = 1e12
AVAILABILITY, BANDWIDTH = ("client", "from", "to"), ("client", "time", "up", "down")


class Trace:
    """A link's speed over time, piecewise constant.

    Args:
      times: s, ascending.
      rates: bytes/s > 0 from `times[k]` on; the first one also before.
    """

    def __init__(self, times: Sequence[float], rates: Sequence[float]) -> None:
        self._times, self._rates = list(times), list(rates)

    def rate(self, begin_s: float, size: float) -> float:
        """The constant bytes/s at which `size` bytes take exactly as long as through the trace from `begin_s` on.

        So a transfer that does not wait for the server ends exactly when it would through the trace; where it shares
        the server's rate, this is its own rate from beginning to end.
        """
        first = max(0, bisect.bisect_right(self._times, begin_s) - 1)
        left, since = size, begin_s
        for k in range(first, len(self._rates)):
            until = self._times[k + 1] if k + 1 < len(self._times) else math.inf
            carries = self._rates[k] * (until - since)
            if left <= carries:
                return self._rates[k] if k == first else size / (since + left / self._rates[k] - begin_s)
            left, since = left - carries, until
        raise AssertionError("the last rate holds for ever")


class Presence:
    """When each client is available.

    Args:
      intervals: of each client [M], (from, to) in s, from included and `to` not; in any order, `to` may be infinite.
    """

    def __init__(self, intervals: Sequence[Sequence[tuple[float, float]]]) -> None:
        self._bounds = [_bounds(own) for own in intervals]  # s at which it comes, leaves, comes, ...

    def there(self, client: int, now_s: float) -> bool:
        """Whether a client is available at a simulated second."""
        return bisect.bisect_right(self._bounds[client], now_s) % 2 == 1

    def next_change(self, client: int, now_s: float) -> float:
        """When a client comes or leaves next, after now (simulated s); infinite if never."""
        bounds = self._bounds[client]
        place = bisect.bisect_right(bounds, now_s)
        return bounds[place] if place < len(bounds) else math.inf


def _bounds(intervals: Sequence[tuple[float, float]]) -> list[float]:
    """Ends of the union: those that touch or overlap are one."""
    bounds: list[float] = []
    for begin, end in sorted(intervals):
        if bounds and begin <= bounds[-1]:
            bounds[-1] = max(bounds[-1], end)
        else:
            bounds += [begin, end]
    return bounds[:-1] if bounds and bounds[-1] == math.inf else bounds


def read_bandwidth(path: str, clients: int) -> tuple[dict[int, Trace], dict[int, Trace]]:
    """Upload and download traces by client, of a CSV `client,time,up,down` (s, MB/s, each from that time on).

    Raises:
      UserError: the file cannot be read, or a line is not allowed; one line, with file and line.
    """
    lines: dict[int, dict[float, tuple[float, float]]] = {}
    for where, client, (time, up, down) in _rows("bandwidth", path, BANDWIDTH, clients):
        _allow(where, "time", time, 0.0, _LATEST_S)
        _allow(where, "up", up, *_SPEEDS)
        _allow(where, "down", down, *_SPEEDS)
        own = lines.setdefault(client, {})
        if time in own:
            raise UserError(f"{where}: client {client} has time {time:g} twice: allowed is once")
        own[time] = (_MB * up, _MB * down)
    made = {client: sorted(own.items()) for client, own in lines.items()}
    up_traces = {client: Trace([t for t, _ in own], [up for _, (up, _) in own]) for client, own in made.items()}
    down_traces = {client: Trace([t for t, _ in own], [down for _, (_, down) in own]) for client, own in made.items()}
    return up_traces, down_traces


def read_availability(path: str, clients: int) -> Mapping[int, list[tuple[float, float]]]:
    """Intervals in s by client, of a CSV `client,from,to`; a client without a line is not in it.

    Raises:
      UserError: as `read_bandwidth`.
    """
    intervals: dict[int, list[tuple[float, float]]] = {}
    for where, client, (begin, end) in _rows("availability", path, AVAILABILITY, clients):
        _allow(where, "from", begin, 0.0, _LATEST_S)
        _allow(where, "to", end, 0.0, _LATEST_S)
        if end <= begin:
            raise UserError(f"{where}: to={end:g}: allowed is more than from={begin:g}")
        intervals.setdefault(client, []).append((begin, end))
    return intervals


def _allow(where: str, name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{where}: {name}={value:g}: allowed is a number from {low:g} to {high:g}")


def _rows(key: str, path: str, columns: Sequence[str], clients: int) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    """The place (file and line, for messages), the client and the numbers of each line after the first."""
    named = f"config.faults.{key}={path!r}"
    allowed = f"a CSV file whose first line is {','.join(columns)}"
    lines = _lines(named, path, allowed)
    if not lines or [cell.lower() for cell in lines[0][1]] != list(columns):
        number, first = (lines[0][0], ",".join(lines[0][1])[:60]) if lines else (1, "empty")
        instead = ", separated by commas" if ";" in first or "\t" in first else ""
        raise UserError(f"{named}: {Path(path).name}, line {number} is {first!r}: allowed is {allowed}{instead}")
    for number, line in lines[1:]:
        where = f"{named}: {Path(path).name}, line {number}"
        try:
            values = [_number(cell) for cell in line]
        except ValueError:
            values = []
        if len(values) != len(columns):
            wanted = f"{len(columns)} numbers, {','.join(columns)}"
            raise UserError(f"{where}: {','.join(line)[:60]!r}: allowed are {wanted}")
        client = values[0]
        if not (client.is_integer() and 0 <= client < clients):
            raise UserError(f"{where}: client={line[0]}: allowed is a client's number from 0 to {clients - 1}")
        yield where, int(client), tuple(values[1:])


def _lines(named: str, path: str, allowed: str) -> list[tuple[int, list[str]]]:
    """The number and the cells of each line that is not blank.

    Raises:
      UserError: the file cannot be read, or is no text in UTF-8 (with or without a byte-order mark).
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{named}: cannot be read (it is not UTF-8, byte {error.object[error.start]:#04x}): allowed is {allowed}, "
            "saved as UTF-8"
        ) from None
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{named}: cannot be read ({reason}): allowed is {allowed}") from None
    return [(number, line) for number, line in lines if any(line)]


def _number(text: str) -> float:
    if "_" in text:  # which Python takes for a separator of digits
        raise ValueError(text)
    return float(text)
