"""The public names of the package, read from the source without importing it.

Public is what a module or package of `prfl_jax` lists in `__all__`; of a class, the methods and properties that do not
begin with an underscore. `scripts/api_docs.sh` builds the API reference from the same modules.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

from paths import ROOT

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes:
      module: the module or package that exports it, as one imports it.
      name: the name; of a method, `Class.method`.
      node: its definition.
      owner: the class of a method.
      note: a constant's comment.
    """

    module: str
    name: str
    node: ast.AST
    owner: ast.ClassDef | None = None
    note: str = ""

    @property
    def doc(self) -> str:
        """Its docstring (never that of `__init__`), or a constant's comment; empty where it has none."""
        if isinstance(self.node, ast.ClassDef | Function):
            return ast.get_docstring(self.node) or ""
        return self.note


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def modules(package: Path = ROOT / "prfl_jax") -> dict[str, Path]:
    """Modules and packages with an `__all__`, by the name one imports."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        if _exported(_tree(path)):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return dict(sorted(found.items()))


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _find(path: Path, name: str) -> tuple[Path, ast.AST]:
    """Where a name is defined, through however many imports.

    Raises:
      KeyError: nowhere.
    """
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and name in {a.asname or a.name for a in node.names}:
            return _find(_file(node.module), next(a.name for a in node.names if (a.asname or a.name) == name))
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return path, node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in {ast.unparse(t) for t in targets if t is not None}:
            return path, node
    raise KeyError(f"{path}: {name} is exported, but defined nowhere")


def _comment(path: Path, node: ast.AST) -> str:
    """Of a constant: the comment above it, or at the end of its first line."""
    lines, first = path.read_text(encoding="utf-8").splitlines(), node.lineno - 1  # type: ignore[attr-defined]
    above: list[str] = []
    while first - 1 - len(above) >= 0 and lines[first - 1 - len(above)].startswith("#"):
        above.insert(0, lines[first - 1 - len(above)].lstrip("# "))
    _, mark, behind = lines[first].partition("  # ")
    return "\n".join([*above, behind] if mark else above)


def _methods(owner: ast.ClassDef) -> Iterator[Function]:
    for node in owner.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def entries() -> Iterator[Entry]:
    """Every public name, then its methods, module by module.

    Raises:
      KeyError: a name that is exported but defined nowhere.
    """
    for module, file in modules().items():
        for name in sorted(_exported(_tree(file)), key=str.lower):
            path, node = _find(file, name)
            if isinstance(node, ast.ClassDef | Function):
                yield Entry(module, name, node)
            else:
                yield Entry(module, name, node, note=_comment(path, node))
            if isinstance(node, ast.ClassDef):
                for method in _methods(node):
                    yield Entry(module, f"{name}.{method.name}", method, owner=node)
