"""The walls of the package: rooms, arrows between them, and limits of size. Read from the source, nothing is run."""

from __future__ import annotations

import ast
import functools

from paths import ROOT

PACKAGE = ROOT / "prfl_jax"
MOST_LINES, MOST_CLASS_LINES, MOST_ARGUMENTS, MOST_ROOT_MODULES = 400, 250, 8, 5
MOST_NAME = 60  # characters of a test function

# From the top down; an arrow (import) may go to the same layer or to a lower one. BUILD.md says why it is so.
LAYERS = (
    ("studies", "benchmarks", "sweep"),
    ("runtime",),
    ("engine",),
    ("report",),
    ("config",),
    ("strategies",),
    ("robustness", "density", "aggregate", "transport", "local"),
    ("submodel",),
    ("data", "models"),
    ("clock",),
    ("startup", "registry"),
    ("system",),
)
FLOOR = {room: len(LAYERS) - number for number, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "scripts").rglob("*.py"))]


def name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


@functools.cache
def imports(path):
    """Modules of the package that a file imports, wherever in it (under TYPE_CHECKING too)."""
    known, found = {name(module) for module in MODULES}, set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "prfl_jax":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
    return found


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_root_has_few_modules():
    assert len([path for path in MODULES if path.parent == PACKAGE]) <= MOST_ROOT_MODULES


def test_every_room_has_a_layer():
    rooms = {room(name(path)) for path in MODULES} - {""}
    assert rooms == set(FLOOR)


def test_arrows_point_down():
    up = [
        f"{name(path)} -> {other}"
        for path in MODULES
        if room(name(path))  # the package's own __init__ names what is public, wherever it is
        for other in sorted(imports(path))
        if room(other) and FLOOR[room(other)] > FLOOR[room(name(path))]
    ]
    assert up == []


def test_no_import_cycle():
    graph = {name(path): sorted(imports(path) - {"prfl_jax"}) for path in MODULES if path.parent != ROOT}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in graph.get(module, ()):
                visit(other)
            path.pop()
            done.add(module)

    for module in graph:
        if module != "prfl_jax":
            visit(module)


def too_large(path):
    """What of a file is beyond the limits."""
    lines = len(path.read_text().splitlines())
    if lines > MOST_LINES:
        yield f"{name(path)} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_CLASS_LINES:
                yield f"class {node.name} of {name(path)} has {lines} lines"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in given if argument.arg not in ("self", "cls")])
            if count > MOST_ARGUMENTS:
                yield f"{node.name} of {name(path)} has {count} arguments"


def test_files_classes_and_signatures_are_small():
    assert [problem for path in SOURCES for problem in too_large(path)] == []


def test_names_of_tests_can_be_scanned():
    found = [
        node.name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(found) > 500 and [name for name in found if len(name) > MOST_NAME] == []
