"""`Headline`: the metric of a report, its values as text and in figures, and the keys that hold them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prfl_jax.report.names import number_text, percent_text
from prfl_jax.tasks import Metric

_SHORT = {"accuracy": "acc", "perplexity": "ppl"}  # where there is little room
_DECADE = 10.0  # largest over smallest value from which an axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Headline:
    """The headline metric of a run, as its report names it (`metric`).

    Values of the metric stand under its name in `final`, in curves and in records, and in `time_to_NAME`.

    Args:
      name: of the metric, and of its values.
      higher_is_better: its direction.
      share: whether it is a share from 0 to 1, which people read as a percentage.
    """

    name: str
    higher_is_better: bool
    share: bool

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Headline:
        """The metric of a report of version 2."""
        return cls(**report["metric"])

    @classmethod
    def of_task(cls, metric: Metric) -> Headline:
        """The metric of a task."""
        return cls(metric.name, metric.higher_is_better, metric.share)

    @classmethod
    def shared(cls, reports: Sequence[Mapping[str, Any]]) -> Headline:
        """The one metric of several reports.

        Raises:
          ValueError: they have more than one.
        """
        found = list(dict.fromkeys(cls.of(report) for report in reports))
        if len(found) != 1:
            raise ValueError(f"reports of different metrics: {', '.join(metric.name for metric in found)}")
        return found[0]

    @property
    def words(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")

    @property
    def times(self) -> str:
        """The key of the times to each threshold."""
        return f"time_to_{self.name}"

    @property
    def final_key(self) -> str:
        """The key of the value at the end, in a comparison."""
        return f"final_{self.name}"

    @property
    def own_key(self) -> str:
        """The key of this run's value beside another's, in a comparison."""
        return f"own_{self.name}"

    def text(self, value: float | None) -> str:
        """0.934 is "93.4 %" of a share; other values are plain numbers; None is "-"."""
        return percent_text(value) if self.share else number_text(value)

    def level_text(self, level: str | float) -> str:
        """A threshold: "80 %" of a share, "200" of others."""
        return f"{100 * float(level):g} %" if self.share else f"{float(level):g}"

    def short_text(self, value: float) -> str:
        """With a short name: "acc 93.4%", "ppl 123.4"."""
        number = f"{100 * value:.1f}%" if self.share else number_text(value)
        return f"{_SHORT.get(self.name, self.words)} {number}"

    def drawn(self, values: Sequence[float | None]) -> list[float]:
        """Values as they are drawn: shares in %; a value that is not known is NaN, a gap."""
        scale = 100 if self.share else 1
        return [math.nan if value is None else scale * value for value in values]

    def axis(self) -> str:
        """The title of an axis of `drawn` values."""
        return f"test {self.words}{' (%)' if self.share else ''}"

    def is_logarithmic(self, values: Sequence[float | None]) -> bool:
        """Whether an axis of these values should be logarithmic: no share, all above 0, over a decade apart."""
        known = [value for value in values if value is not None]
        return not self.share and bool(known) and min(known) > 0 and max(known) > _DECADE * min(known)

    def easiest_first(self, levels: Sequence[str]) -> list[str]:
        """Thresholds in the order in which a run that gets better reaches them."""
        return sorted(levels, key=float, reverse=not self.higher_is_better)


ACCURACY = Headline("accuracy", higher_is_better=True, share=True)
