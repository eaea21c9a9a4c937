"""`Study`: what of a paper can be made here, from which runs, and how; and the table of the studies."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prfl_jax.studies.columns import Column, Preset
from prfl_jax.studies.reports import Reports
from prfl_jax.system.errors import UserError

# --paper -> the module that has its `STUDY`; imported when it is asked for
_MODULES = {
    "prfl": "prfl_jax.studies.prfl.study",
    "fedmp": "prfl_jax.studies.fedmp.study",
    "edge_pruning": "prfl_jax.studies.edge_pruning.study",
}
STUDIES = tuple(_MODULES)


@dataclasses.dataclass(frozen=True)
class Material:
    """What a table or figure is made from.

    Attributes:
      out: folder to write to.
      preset: the columns.
      reports: of all runs there are.
      seeds: how many seeds there should be of each run.
    """

    out: Path
    preset: Preset
    reports: Reports
    seeds: int

    def of(self, columns: Sequence[Column], methods: Sequence[str]) -> Material:
        """The part of it that one table shows: these columns, with these methods alone."""
        own = [dataclasses.replace(c, methods=tuple(m for m in c.methods if m in methods)) for c in columns]
        kept = {(column.key, method) for column in own for method in column.methods}
        reports = {key: found for key, found in self.reports.items() if key in kept}
        return dataclasses.replace(self, preset=dataclasses.replace(self.preset, columns=tuple(own)), reports=reports)


def deferred(spec: str) -> Callable[[Material], None]:
    """The function `MODULE:NAME`, imported when called: a wrong flag is told before JAX and Matplotlib are loaded."""
    module, _, name = spec.partition(":")

    def make(material: Material) -> None:
        getattr(importlib.import_module(module), name)(material)

    return make


Needs = Callable[[Column, Sequence[Column]], Sequence[str]]


def _no_runs(column: Column, columns: Sequence[Column]) -> Sequence[str]:
    return ()


@dataclasses.dataclass(frozen=True)
class Product:
    """A table or figure, or several that go by one name.

    Attributes:
      make: writes its files.
      methods: of a column, given all of the preset too, those whose runs it shows.
      from_runs: whether it shows runs; else it is made without any, by the clock alone or by measuring.
    """

    make: Callable[[Material], None]
    methods: Needs = _no_runs
    from_runs: bool = True


# (seed, folder of a run that is over, its report's file): keeps what is wanted of the folder beside the report
Keep = Callable[[int, Path, Path], None]


def keep_nothing(seed: int, folder: Path, report: Path) -> None:
    """The report alone stays of a run."""


@dataclasses.dataclass(frozen=True)
class Study:
    """The tables and figures of one paper.

    Attributes:
      name: as `--paper` has it.
      products: by name, as `--what` has it.
      presets: by name, as `--preset` has it.
      prefix: of the folders in which its results lie.
      keep: what stays of a run beside its report.
    """

    name: str
    products: Mapping[str, Product]
    presets: Mapping[str, Callable[[], Preset]]
    prefix: str = ""
    keep: Keep = keep_nothing

    def preset(self, name: str) -> Preset:
        """A preset by its name.

        Raises:
          UserError: another name.
        """
        if name not in self.presets:
            raise UserError(f"--preset={name}: allowed is one of {', '.join(self.presets)}")
        return self.presets[name]()

    def chosen(self, what: str) -> list[str]:
        """The products that `--what` asks for.

        Raises:
          UserError: another name.
        """
        if what != "all" and what not in self.products:
            raise UserError(
                f"--what={what}: allowed with --paper={self.name} is one of {', '.join(self.products)}, all"
            )
        return list(self.products) if what == "all" else [what]

    def methods_for(
        self, what: Sequence[str], only: Sequence[str], columns: Sequence[Column]
    ) -> Callable[[Column], list[str]]:
        """Which methods of a column are run: those of `only`, else those that these products show.

        Raises:
          UserError: `only` names a method that no column has.
        """
        known = {method: None for column in columns for method in column.methods}
        for name in only:
            if name not in known:
                raise UserError(f"--only={name}: allowed are {', '.join(known)}")

        def methods(column: Column) -> list[str]:
            needed = set(only) or {method for name in what for method in self.products[name].methods(column, columns)}
            return [method for method in column.methods if method in needed]

        return methods


def find_study(name: str) -> Study:
    """The study of a paper.

    Raises:
      UserError: there is none of that name.
    """
    if name not in _MODULES:
        raise UserError(f"--paper={name}: allowed is one of {', '.join(STUDIES)}")
    study: Study = importlib.import_module(_MODULES[name]).STUDY
    return study
