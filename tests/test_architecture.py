"""The walls of the package: rooms, arrows between them, and limits of size. Read from the source, nothing is run."""

from __future__ import annotations

import ast
import functools

from paths import ROOT

from prfl_jax.config.schema import RULES

PACKAGE = ROOT / "prfl_jax"
MOST_LINES, MOST_CLASS_LINES, MOST_ARGUMENTS, MOST_ROOT_MODULES = 400, 250, 8, 5
MOST_NAME = 60  # characters of a test function

# From the top down; an arrow (import) may go to the same layer or to a lower one. BUILD.md says why it is so.
LAYERS = (
    ("studies", "benchmarks", "sweep", "compile_check"),
    ("runtime",),
    ("engine",),
    ("report",),
    ("config",),
    ("strategies",),
    ("robustness", "density", "aggregate", "transport", "local"),
    ("submodel",),
    ("data", "models"),
    ("clock",),
    ("tasks",),
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


def test_one_module_asks_jax_for_its_devices():
    """So that programs can be compiled for a machine that is not here (`accelerator.compiling_for`)."""
    asks = ("default_backend", "devices", "local_devices", "device_count", "local_device_count")
    found = {
        name(path)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in asks and isinstance(node.value, ast.Name)
        if node.value.id == "jax"
    }
    assert found == {"prfl_jax.system.accelerator"}


def test_names_of_tests_can_be_scanned():
    found = [
        node.name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(found) > 500 and [name for name in found if len(name) > MOST_NAME] == []


# --- choices: their names are compared in their own rooms alone ---

# Keys that name a choice, and the room of each. The names themselves are in the schema, which has them from the rooms.
CHOICES = {
    "submodel.name": "submodel",
    "submodel.importance": "submodel",
    "density.name": "density",
    "density.rule": "density",
    "density.reward_scale": "density",
    "density.loss_change": "density",
    "aggregation.name": "aggregate",
    "aggregation.staleness": "aggregate",
    "aggregation.client_weight": "aggregate",
    "window.close": "clock",
    "window.dispatch": "clock",
    "transport.name": "transport",
    "transport.bytes": "transport",
    "transport.upload": "transport",
    "local.name": "local",
    "local.optimizer": "local",
    "local.lr_schedule": "local",
    "aggregation.optimizer": "aggregate",
    "attack.name": "robustness",
    "data.name": "data",
    "data.partition": "data",
    "data.normalize": "data",
    "data.augment": "data",
    "data.unit": "data",
    "data.targets": "data",
    "model.name": "models",
    "model.init": "models",
    "model.loss": "models",
    "eval.signal": "data",
    "strategy": "strategies",
}
# Rooms that share a choice: the clock moves what a transport says, so the objects of both are made there.
SHARED = {"transport": {"transport", "clock"}}
NAMES_MAY_STAND_IN = ("strategies", "studies", "report")  # the table of methods, and what reports on named methods
# Comparisons with a word that means something else there, though a choice has the same name.
OTHER_MEANINGS = {
    ("prfl_jax.benchmarks.kernels", "size == 'full'"): "the size of a benchmark",
    ("prfl_jax.benchmarks.suite", "request.size == 'full'"): "the size of a benchmark",
    ("prfl_jax.benchmarks.timing", "row.bound_on == 'median'"): "the statistic of a timing",
    ("prfl_jax.compile_check.hlo", "one.code == 'constant'"): "an instruction of a compiled program",
    ("prfl_jax.config.cli", "text.strip().lower() == 'none'"): "the text of Python's None",
    ("prfl_jax.data.femnist.builder", "'all' not in files"): "LEAF's folder of all images",
}


def choices_names():
    """{name of a choice: rooms in which it may be compared}."""
    found = {}
    for key, home in CHOICES.items():
        listed = RULES[key].allowed.removeprefix("one of ").removesuffix(" or None")
        names = listed.partition(", or ")[0].split(", ")
        assert all(RULES[key].accepts(name) for name in names)
        for one in names:
            found.setdefault(one, set(NAMES_MAY_STAND_IN)).update(SHARED.get(home, {home}))
    return found


def strings(node):
    """The text constants that an expression compares with: itself, or the elements of a tuple, list or set."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def key_of(node):
    """The key of a choice that an expression reads, as `config.window.close` or `flat["window.close"]`; else None."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return node.slice.value if node.slice.value in CHOICES else None
    text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    return next((key for key in CHOICES if "." in key and text.endswith(f".{key}")), None)


def compared(path):
    """(line, what is compared) for each comparison with a choice's name in a file where it may not be."""
    here, names = room(name(path)) or "scripts", choices_names()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith"):
            operands = [node.func.value, *node.args]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        else:
            continue
        texts = [text for operand in operands for text in strings(operand)]
        keys = [key for operand in operands if (key := key_of(operand))]
        foreign = [text for text in texts if text in names and here not in names[text]]
        foreign += [key for key in keys if here not in {*SHARED.get(CHOICES[key], {CHOICES[key]}), *NAMES_MAY_STAND_IN}]
        if foreign:
            yield node.lineno, ast.unparse(node)


def test_names_of_choices_are_compared_in_their_rooms_alone():
    every = [(name(path), line, code) for path in SOURCES for line, code in compared(path)]
    assert OTHER_MEANINGS.keys() <= {(module, code) for module, _, code in every}, "an exception that is not needed"
    found = [f"{module}:{line}: {code}" for module, line, code in every if (module, code) not in OTHER_MEANINGS]
    assert not found, "\n".join([f"{len(found)} comparisons with a choice's name outside its room:", *found])
