"""Reads and writes `report.json`, and loads its JSON Schema."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prfl_jax.report.metric import ACCURACY
from prfl_jax.report.plain import readable
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import write_text

# Of report.json, named in schema.json; it rises where a key changes its meaning.
SCHEMA_VERSION = 2


def load_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `report.json` follows, of version 1 too."""
    text = importlib.resources.files("prfl_jax.report").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def write_report(path: str | os.PathLike[str], report: Mapping[str, Any]) -> None:
    """Writes a report with sorted keys; the file is replaced as a whole or not at all.

    Raises:
      ValueError: a number is not finite; nothing is written.
    """
    path = Path(path)
    text = readable(report)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a report, as `present_version` gives it.

    Raises:
      UserError: for a missing file, one that is not a report, or one of a later version.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a run that has ended leaves report.json in its --workdir") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the report.json of a run") from None
    except ValueError:
        report = None
    if not isinstance(report, dict) or "schema_version" not in report:
        raise UserError(f"{path}: not a report; give the report.json of a run")
    return present_version(report, path)


def present_version(report: Mapping[str, Any], source: str | os.PathLike[str] = "report") -> dict[str, Any]:
    """A report of any version in the form of the present one.

    In version 1 the metric was always accuracy, and nothing said so: `metric` and `final.metric` are filled in.

    Args:
      report: as JSON has it; it is not changed.
      source: where it comes from, for the error.

    Raises:
      UserError: it is of a later version.
    """
    version = report.get("schema_version", 1)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise UserError(
            f"{source}: has schema_version={str(version)[:20]}; this version of prfl_jax reads 1 to {SCHEMA_VERSION}"
        )
    found = dict(report)
    if version == 1:
        found |= {"schema_version": SCHEMA_VERSION, "metric": dataclasses.asdict(ACCURACY)}
        if isinstance(final := report.get("final"), Mapping):
            found["final"] = {**final, "metric": final.get("accuracy")}
    return found
