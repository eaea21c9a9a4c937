"""Shows the progress of a run on stderr: a bar in a terminal, a few lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TextIO

from prfl_jax.report.metric import ACCURACY, Headline
from prfl_jax.report.names import density_text, duration_text, seconds_text
from prfl_jax.system import console

_LINE_EVERY_SHARE = 0.1
_LINE_EVERY_S = 600.0


class Progress:
    """Shows window, simulated time, metric, arrivals per window (arr), densities (ρ) and the time left.

    The share that is done is the larger of windows done over `windows` and simulated seconds over `horizon_s`, because
    the run ends at whichever comes first.

    Args:
      windows: the largest number of windows; None: only the horizon limits the run.
      horizon_s: the largest simulated second; None: only the windows limit the run.
      window, simulated_s: where a resumed run starts.
      stream: where it is written; None: stderr.
      bar: True: a tqdm bar; False: a plain line for every tenth of the run or ten minutes;
        None: a bar if the stream is a terminal.
      clock: returns host seconds.
      metric: the headline metric of the run.
    """

    def __init__(
        self,
        windows: int | None,
        horizon_s: float | None = None,
        *,
        window: int = 0,
        simulated_s: float = 0.0,
        stream: TextIO | None = None,
        bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        metric: Headline = ACCURACY,
    ) -> None:
        self._metric = metric
        self._windows, self._horizon_s = windows, horizon_s
        self._stream = console.errors() if stream is None else stream
        self._clock = clock
        self._rho = _readable_sign(self._stream, "ρ", "density")
        self._first_share = self.share(window, simulated_s)
        self._start_s = self._line_s = clock()
        self._line_share = self._first_share
        self._text = ""
        self._line_text = ""
        self._bar: Any = None
        if console.is_terminal(self._stream) if bar is None else bar:
            from tqdm import tqdm

            self._bar = tqdm(
                total=1.0,
                initial=self._first_share,
                file=self._stream,
                dynamic_ncols=True,
                smoothing=0.1,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left",
            )

    def share(self, window: int, simulated_s: float) -> float:
        """The share of the run that is done at `window` and `simulated_s`, from 0 to 1."""
        shares = [0.0]
        if self._windows:
            shares.append(window / self._windows)
        if self._horizon_s:
            shares.append(simulated_s / self._horizon_s)
        return min(1.0, max(shares))

    def update(
        self,
        window: int,
        simulated_s: float,
        *,
        value: float | None = None,
        model: str | None = None,
        arrivals_per_window: float | None = None,
        density_pct: Sequence[int] | None = None,
    ) -> None:
        """Shows that the run is past `window`, at `simulated_s`.

        Args:
          value: of the metric, of the headline model at the last evaluation.
          model: the name of the headline model; None: there is only one server model.
          arrivals_per_window: mean over the last windows.
          density_pct: `[M]` densities in percent.
        """
        share = self.share(window, simulated_s)
        result = "" if value is None else f"{model + ' ' if model else ''}{self._metric.short_text(value)}"
        self._text = self._describe(window, simulated_s, result, arrivals_per_window, density_pct)
        if self._bar is not None:
            self._bar.set_description_str(self._text, refresh=False)
            self._bar.update(share - self._bar.n)
            return
        now = self._clock()
        if share - self._line_share >= _LINE_EVERY_SHARE - 1e-9 or now - self._line_s >= _LINE_EVERY_S:
            self._line_share, self._line_s, self._line_text = share, now, self._text
            self._put(f"{share:4.0%}  {self._text}  {self._left(share, now)}".rstrip())

    def write(self, text: str) -> None:
        """Writes a line of text without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._put(text)

    def close(self) -> None:
        """Shows the last state and ends the bar; may be called again."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None
        elif self._text and self._text != self._line_text:
            self._put(f"end   {self._text}")
        self._text = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    def _left(self, share: float, now: float) -> str:
        done = share - self._first_share
        return "" if done <= 0 else f"{duration_text((now - self._start_s) * (1 - share) / done)} left"

    def _describe(
        self,
        window: int,
        simulated_s: float,
        result: str,
        arrivals: float | None,
        density_pct: Sequence[int] | None,
    ) -> str:
        parts = [f"window {window}/{self._windows}" if self._windows else f"window {window}"]
        parts.append(seconds_text(simulated_s))
        if result:
            parts.append(result)
        if arrivals is not None:
            parts.append(f"arr {arrivals:.1f}")
        if density_pct is not None and len(density_pct):
            low, high = density_text(min(density_pct) / 100), density_text(max(density_pct) / 100)
            parts.append(f"{self._rho} {low}" if low == high else f"{self._rho} {low}-{high}")
        return "  ".join(parts)  # short, so that bar and time left fit into 80 columns


def _readable_sign(stream: TextIO, sign: str, instead: str) -> str:
    """`sign`, or `instead` where the stream's encoding does not have it."""
    try:
        sign.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return instead
    return sign
