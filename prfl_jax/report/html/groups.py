"""Groups the runs of an HTML page: runs that differ only in their seed share a name, a colour and a line style."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Sequence
from typing import Any

from prfl_jax.report.groups import alike, describes, leaves, one_of_each_seed, settings
from prfl_jax.report.html.runs import Run
from prfl_jax.report.metric import Headline
from prfl_jax.report.names import STRATEGY_ORDER, strategy_name

# As easy to distinguish with any colour vision as twelve colours can be; the first is PR-FL's if it is there.
COLOURS = (
    "#1a1a1a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#6a3d9a", "#9a9a00",
    "#e0218a", "#7f7f7f",
)  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
TASK = ("data.name", "data.partition")  # methods are compared within one task
MOST_TASKS = 6  # that get a section each
_MOST_SETTINGS = 3  # shown in a name
_LONGEST = 40  # characters of a value in a name


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one method in one setting.

    Attributes:
      number: its position on the page.
      name: unique within its task.
      task: the data that it was run on, and the metric if the page has several; empty if the page has only one task.
      runs: one for each seed, by seed, over which means and spreads are taken.
      again: further runs of the same seeds.
      colour, dash: of its lines.
    """

    number: int
    name: str
    task: str
    runs: tuple[Run, ...]
    again: tuple[Run, ...]
    colour: str
    dash: str

    @property
    def metric(self) -> Headline:
        """The headline metric of its runs."""
        return self.runs[0].metric

    @property
    def title(self) -> str:
        """A name that is unique on the page."""
        return f"{self.name}, {self.task}" if self.task else self.name

    @property
    def seeds(self) -> str:
        """The seeds of its runs, as text."""
        return ", ".join(str(run.report["seed"]) for run in self.runs)

    def label(self, width: int = 26) -> str:
        """The name for Plotly, which interprets tags, in lines of at most `width` characters."""
        return "<br>".join(html.escape(line, quote=False) for line in textwrap.wrap(self.name, width)) or "?"


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Makes the groups of a page: the task with most runs first, within it in the order of `STRATEGY_ORDER`."""
    found = [[runs[place] for place in places] for places in alike([_settings(run) for run in runs])]
    tasks = [_task(members[0]) for members in found]
    known: list[str] = sorted(set(tasks))
    if len(known) == 1 or len(known) > MOST_TASKS or len(known) == len(found):
        tasks = [""] * len(found)  # one section: the data is a setting like others
    tasks = _by_metric(found, tasks)
    weight = {task: sum(len(f) for f, where in zip(found, tasks, strict=True) if where == task) for task in tasks}
    order = sorted(range(len(found)), key=lambda k: (-weight[tasks[k]], tasks[k], _rank(found[k][0]), k))
    found, tasks = [found[k] for k in order], [tasks[k] for k in order]
    names = _names(found, tasks)
    styles = _styles(found, tasks)
    groups = []
    for number, (members, task) in enumerate(zip(found, tasks, strict=True)):
        counted = one_of_each_seed([run.report for run in members])
        groups.append(
            Group(
                number, names[number], task, tuple(members[place] for place in counted),
                tuple(run for place, run in enumerate(members) if place not in counted), *styles[number],
            )
        )  # fmt: skip
    return groups


def _rank(run: Run) -> tuple[int, str]:
    strategy = run.report["strategy"]
    return STRATEGY_ORDER.get(strategy, len(STRATEGY_ORDER)), strategy


def _settings(run: Run) -> dict[str, Any]:
    """`settings` of a run; without the length of a run in `compare/`, which is that of another run."""
    found = settings(run.report)
    if run.compared:
        found |= {"horizon_s": "that of the run beside it", "rounds": None}
    return found


def _task(run: Run) -> str:
    found = leaves(run.report["config"])
    return "{} ({})".format(*(found.get(key, "?") for key in TASK))


def _by_metric(found: Sequence[Sequence[Run]], tasks: Sequence[str]) -> list[str]:
    """The tasks, with the metric in each name if there are several: one section never has two."""
    metrics = [members[0].metric.words for members in found]
    if len(set(metrics)) == 1:
        return list(tasks)
    return [f"{task}, {metric}" if task else metric for task, metric in zip(tasks, metrics, strict=True)]


def _names(found: Sequence[Sequence[Run]], tasks: Sequence[str]) -> list[str]:
    """Names of the groups: the method, and the settings in which it differs if a task has the method more than once."""
    names = []
    for members, task in zip(found, tasks, strict=True):
        own = members[0]
        rivals = [
            _settings(other[0])
            for other, where in zip(found, tasks, strict=True)
            if where == task and other[0].report["strategy"] == own.report["strategy"]
        ]
        described, mine = [describes(rival) for rival in rivals], _settings(own)
        keys = dict.fromkeys(key for other in described for key in other)
        apart = [key for key in keys if len({other.get(key) for other in described}) > 1]
        said = [f"{key}={_short(mine.get(key))}" for key in apart[:_MOST_SETTINGS]]
        more = [f"{len(apart) - _MOST_SETTINGS} more"] if len(apart) > _MOST_SETTINGS else []
        names.append(strategy_name(own.report["strategy"]) + (f" ({', '.join(said + more)})" if said else ""))
    taken: dict[tuple[str, str], int] = {}
    for place, (name, task) in enumerate(zip(names, tasks, strict=True)):  # shortened values may be equal
        taken[name, task] = taken.get((name, task), 0) + 1
        if taken[name, task] > 1:
            names[place] = f"{name} [{taken[name, task]}]"
    return names


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"


def _styles(found: Sequence[Sequence[Run]], tasks: Sequence[str]) -> list[tuple[str, str]]:
    """A colour for each method and a dash for each of its settings; if there are too many, a pair for each group."""
    strategies = list(dict.fromkeys(members[0].report["strategy"] for members in found))
    seen: dict[tuple[str, str], int] = {}
    places = []
    for members, task in zip(found, tasks, strict=True):
        key = (task, members[0].report["strategy"])
        places.append((strategies.index(key[1]), seen.get(key, 0)))
        seen[key] = places[-1][1] + 1
    rounds, most = -(-len(strategies) // len(COLOURS)), max(seen.values(), default=1)
    if rounds * most > len(DASHES):
        places = [(place % len(COLOURS), place // len(COLOURS)) for place in range(len(found))]
        rounds = 1
    return [
        (COLOURS[colour % len(COLOURS)], DASHES[(colour // len(COLOURS) + rounds * dash) % len(DASHES)])
        for colour, dash in places
    ]
