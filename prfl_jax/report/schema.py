"""Reads and writes `report.json`, and loads its JSON Schema."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prfl_jax.report.plain import readable
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import write_text


def load_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `report.json` follows."""
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
    """Reads a report.

    Raises:
      UserError: for a missing file or one that is not a report.
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
    return report
