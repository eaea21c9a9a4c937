"""The guides run, in a tiny setting; pages and docstrings name all that the package has; their examples are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import public_names
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
GUIDES = sorted(path.name for path in DOCS.glob("*.md"))
NOT_RUN = (
    "first_hour.md",  # takes a while: tried by hand
    "machines.md",  # needs machines: tried by hand
    "architecture.md",  # these three have no command of scripts/train.py
    "reproducing.md",
    "speed.md",
)
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# `tiny`'s setting, but for what a guide is about.
SMALL = {**tiny.SETTINGS, "clients.flop_s": (), "rounds": 4, "compare": ()}


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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "BUILD.md", "results/README.md", *GUIDES])
def test_links_lead_to_files_and_headings(page):
    page = DOCS / page if page in GUIDES and page != "README.md" else ROOT / page
    for target, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#?)([^)]*)\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name}: {target}"
        assert not heading or heading in headings(path), f"{page.name}: {target}#{heading}"


def headings(path):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short_and_names_every_method():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1100
    named = {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert strategies.METHODS.keys() <= named


def test_the_page_of_methods_has_every_row():
    text = (DOCS / "methods.md").read_text()
    rows = {
        cells[0]: cells[1:] for cells in re.findall(r"^\| `(\w+)`" + r" \| ([^|]+)" * 6 + r" \|$", text, re.MULTILINE)
    }
    for name, method in strategies.METHODS.items():
        assert name in rows, f"docs/methods.md has no row `{name}`"
        submodel, density, aggregation, window, transport, local = rows[name]
        then = f", then {method.optimizer}" if method.optimizer != "none" else ""
        assert aggregation == method.aggregation + then, name
        part = f", upload {method.upload}" if method.upload != "whole" else ""
        written = (submodel, density, transport, local)
        assert written == (method.submodel, method.density, method.transport + part, method.local), name
        window = rows["prfl"][3] if window == "as `prfl`" else window
        assert window.startswith(f"`{method.window.close}`"), name
        assert ("on arrival" in window) == (method.window.dispatch == "on_arrival"), name
        assert ("first waits" in window) == method.window.first_waits_for_all, name


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


@pytest.mark.parametrize("page", ["attacks_and_privacy.md", "own_density.md", "reading_a_report.md"])
def test_pages_about_any_samples_do_not_speak_of_images(page):
    assert not re.findall(r".*\bimages?\b.*", (DOCS / page).read_text(), re.IGNORECASE)


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


# --- docstrings ---

ENTRIES = list(public_names.entries())
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "prfl_jax").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(module, monkeypatch):
    monkeypatch.chdir(ROOT)  # config files are named as from a clone
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def test_what_a_newcomer_calls_first_has_an_example():
    documented = {f"{entry.module}.{entry.name}": entry.doc for entry in ENTRIES}
    for name in ("prfl_jax.load_config", "prfl_jax.strategies.use", "prfl_jax.aggregate.staleness_weight"):
        assert ">>> " in documented[name], name


def test_every_export_is_public():
    import prfl_jax

    assert set(prfl_jax.__all__) <= {entry.name for entry in ENTRIES if entry.module == "prfl_jax"}
    modules = public_names.modules().keys()
    assert {"prfl_jax.data", "prfl_jax.density", "prfl_jax.submodel", "prfl_jax.strategies"} <= modules
    assert all(f"`{module}`" in prfl_jax.__doc__ for module in modules if module.count(".") == 1)


@pytest.mark.slow
def test_the_api_reference_has_a_page_for_every_public_module(tmp_path):
    """As CI builds it, where pdoc is installed: a warning is an error."""
    pytest.importorskip("pdoc")
    command = [ROOT / "scripts" / "api_docs.sh", tmp_path / "api"]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {".".join(p.relative_to(tmp_path / "api").with_suffix("").parts) for p in tmp_path.rglob("*.html")}
    assert public_names.modules().keys() <= pages
    assert "load_config" in (tmp_path / "api" / "prfl_jax.html").read_text()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.module}.{entry.name}")
def test_a_public_name_is_described(entry):
    """With its arrays and fields by name, and its errors where it raises a UserError itself."""
    assert entry.doc, "no docstring (a constant: no comment)"
    around = entry.doc + (ast.get_docstring(entry.owner) or "" if entry.owner is not None else "")
    function, raises = entry.node, entry.node
    if isinstance(entry.node, ast.ClassDef):
        own_parts = {part.name: part for part in entry.node.body if isinstance(part, public_names.Function)}
        function = own_parts.get("__init__")
        raises = function or own_parts.get("__post_init__")
        fields = [part.target.id for part in entry.node.body if isinstance(part, ast.AnnAssign)]
        kinds = [ast.unparse(kind) for kind in (*entry.node.decorator_list, *entry.node.bases)]
        if any("dataclass" in kind or "NamedTuple" in kind for kind in kinds):
            assert [name for name in fields if not re.search(rf"\b{name}\b", entry.doc)] == []
    if isinstance(function, public_names.Function):
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.annotation is not None and re.search(r"ndarray|jax\.Array", ast.unparse(argument.annotation)):
                assert re.search(rf"\b{argument.arg}\b", around), f"{argument.arg} is an array, but not described"
    if isinstance(raises, public_names.Function) and "raise UserError" in ast.unparse(raises):
        assert "Raises:" in entry.doc or "Raises " in entry.doc
