"""The guides: their code runs, in a tiny setting; pages that say what the package has say all of it."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest
import tiny
from paths import ROOT

from prfl_jax import registry, strategies
from prfl_jax.clock import CLOSE_RULES, KINDS, ties
from prfl_jax.config import cli
from prfl_jax.config.cli import load_config, split_argv
from prfl_jax.config.schema import RULES
from prfl_jax.report import load_schema
from prfl_jax.runtime.experiment import Experiment

DOCS = ROOT / "docs"
GUIDES = sorted(path.name for path in DOCS.glob("*.md") if path.name != "api.md")
NOT_RUN = ("first_hour.md", "machines.md")  # takes a while, needs machines: what was tried by hand
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# `tiny`'s setting, but for what a guide is about.
SMALL = {**tiny.SETTINGS, "rounds": 4, "compare": ()}


def blocks(name):
    """(language, code) of each fenced block of a guide."""
    return _FENCE.findall((DOCS / name).read_text())


def commands(code):
    """The arguments of each scripts/train.py in a block of bash."""
    lines = [shlex.split(line) for line in code.splitlines() if line.strip()]
    assert all(line[:2] == ["python", "scripts/train.py"] for line in lines), lines
    return [line[2:] for line in lines]


def config_of(arguments):
    """(the command's config file, its overrides, its own flags)."""
    path, pairs, rest = split_argv(["train.py", *arguments])
    path = Path(path)
    return path if path.exists() else ROOT / path, dict(pairs), dict(flag.lstrip("-").split("=") for flag in rest[1:])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, whose files can be imported; none of them stays loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.slow
@pytest.mark.parametrize("guide", [name for name in GUIDES if name not in NOT_RUN])
def test_the_code_of_a_guide_runs(guide, folder):
    ran = 0
    for language, code in blocks(guide):
        named = re.match(r"# ([\w/]+\.py)\n", code)
        if language == "python" and named is not None:
            (folder / named[1]).write_text(code)
        elif language == "python":
            exec(compile(code, guide, "exec", dont_inherit=True), {"__name__": "guide"})
        elif language == "bash":
            for arguments in commands(code):
                run(arguments)
                ran += 1
        else:
            assert language in ("text", "json"), language
    assert ran


def run(arguments):
    """What the command would do, with few clients, images and windows."""
    path, pairs, flags = config_of(arguments)
    config = load_config(path, {**SMALL, **pairs})
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        done = Experiment(config).run(flags["workdir"], progress=False)
    assert done.report["ended"]["how"] == "rounds" and done.report["client_updates"] > 0


@pytest.mark.slow
def test_the_formula_of_the_guide_has_fedavg_as_its_limit(folder):
    """M clients that are equally fast, all in each window, and a server rate of 1 / M."""
    code = next(code for _, code in blocks("from_formula_to_row.md") if code.startswith("# async_fedfix.py"))
    (folder / "async_fedfix.py").write_text(code)
    alike = dict(
        clients__up_mb_s=(2.0,) * 4,
        clients__down_mb_s=(8.0,) * 4,
        clients__sigma=0.0,
        server__sigma=0.0,
        server__contention=False,
        rounds=4,
    )
    own_rule = {"aggregation__name": "async_fedfix.py:ASYNC_FEDFIX", "aggregation__server_lr": 0.25}
    tiny.close(tiny.run("fedavg", **alike, **own_rule).params, tiny.run("fedavg", **alike).params, 1e-5)


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_and_keys_in_a_guide_exist(guide):
    text = (DOCS / guide).read_text()
    flags = set(re.findall(r'DEFINE_\w+\("(\w+)"', (ROOT / "scripts/train.py").read_text()))
    for language, code in blocks(guide):
        for arguments in commands(code) if language == "bash" else ():
            path, pairs, given = config_of(arguments)
            assert given.keys() <= flags and pairs.keys() <= RULES.keys()
            if path.exists() and not any(registry.is_own(value) for value in pairs.values()):
                load_config(path, pairs)
    groups = "|".join(sorted({key.split(".")[0] for key in RULES if "." in key}))
    for key in re.findall(rf"`((?:{groups})\.[a-z_]+)(?:=[^`]*)?`", text):
        assert key in RULES, f"{guide}: {key}"
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (DOCS / target).exists(), f"{guide}: {target}"
    for path in re.findall(r"`((?:prfl_jax|tests|scripts|configs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"{guide}: {path}"


def test_help_names_the_page_of_the_keys_that_the_clock_reads():
    lines = {line.split()[0]: line for line in cli._config_help().splitlines() if line.startswith("  ")}
    named = {key for key, line in lines.items() if "docs/clock.md" in line}
    assert named == {"strategy", "window.close", "window.k", "window.dispatch", "transport.name", "transport.bytes"}
    text = (DOCS / "clock.md").read_text()
    assert all(f"`{close}`" in text for close in CLOSE_RULES) and "docs/clock.md" in strategies.__doc__
    assert f"relative {ties.TOLERANCE:.0e}" in text


def test_the_index_names_every_guide_and_every_key_of_ones_own():
    text = (DOCS / "README.md").read_text()
    assert all(f"({path.name})" in text for path in DOCS.glob("*.md") if path.name != "README.md")
    assert all(f"`{key}`" in text for key in registry.KEYS)


@pytest.mark.slow
def test_reading_a_report_names_every_key():
    tables = [line for line in (DOCS / "reading_a_report.md").read_text().splitlines() if line.startswith("|")]
    first = {name for line in tables for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert load_schema()["properties"].keys() <= first
    rows = {line.split("`")[1]: set(re.findall(r"`([a-z_]+)`", line)) for line in tables if line.startswith("| `")}
    faulty = tiny.run("fedavg", faults__dropout=0.3, faults__repeated_upload=0.3)
    assert set(KINDS) <= rows["faults"]
    for record in (*tiny.run("prfl").records, *faulty.records):
        if record["kind"] != "end":  # as `ended`
            assert record.keys() - {"kind", "window"} <= rows[record["kind"]], record["kind"]
    for name in ("failures", "repeats"):
        entries = [entry for window in faulty.of("window") for entry in window.get(name, ())]
        assert entries and all(entry.keys() <= rows[name] for entry in entries)


# --- the API page ---

API = runpy.run_path(str(ROOT / "scripts" / "api_page.py"))
ENTRIES = list(API["entries"]())
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_the_api_page_is_what_the_docstrings_give():
    assert (DOCS / "api.md").read_text() == API["page"](), "run: python scripts/api_page.py"


def test_every_export_is_on_the_page():
    import prfl_jax

    assert set(prfl_jax.__all__) <= {entry.name for entry in ENTRIES if entry.room == "prfl_jax"}
    assert {"prfl_jax.data", "prfl_jax.density", "prfl_jax.submodel", "prfl_jax.strategies"} <= API["rooms"]().keys()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.room}.{entry.name}")
def test_a_public_name_is_described(entry):
    """With its arrays and fields by name, and its errors where it raises a UserError itself."""
    assert entry.doc, "no docstring (a constant: no comment)"
    around = entry.doc + (ast.get_docstring(entry.owner) or "" if entry.owner is not None else "")
    function, raises = entry.node, entry.node
    if isinstance(entry.node, ast.ClassDef):
        own_parts = {part.name: part for part in entry.node.body if isinstance(part, _FUNCTION)}
        function = own_parts.get("__init__")
        raises = function or own_parts.get("__post_init__")
        fields = [part.target.id for part in entry.node.body if isinstance(part, ast.AnnAssign)]
        kinds = [ast.unparse(kind) for kind in (*entry.node.decorator_list, *entry.node.bases)]
        if any("dataclass" in kind or "NamedTuple" in kind for kind in kinds):
            assert [name for name in fields if not re.search(rf"\b{name}\b", entry.doc)] == []
    if isinstance(function, _FUNCTION):
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.annotation is not None and re.search(r"ndarray|jax\.Array", ast.unparse(argument.annotation)):
                assert re.search(rf"\b{argument.arg}\b", around), f"{argument.arg} is an array, but not described"
    if isinstance(raises, _FUNCTION) and "raise UserError" in ast.unparse(raises):
        assert "Raises:" in entry.doc or "Raises " in entry.doc
