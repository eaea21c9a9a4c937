"""Writes docs/api.md from the docstrings of every public name.

    python scripts/api_page.py

Public is what a module or package of `prfl_jax` lists in `__all__`; of a class, the methods and properties that do not
begin with an underscore. The source is read, not run, so nothing has to be installed and the page does not depend on
versions. `tests/test_docs.py` holds the committed page equal to this, and says which docstrings lack something.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
_HEAD = """\
# Public names

Made by `python scripts/api_page.py` from the docstrings; not to be edited. `[M, ...]` is an array by client, s are
seconds, MB 10^6 bytes. Where a docstring names no errors, only a mistake in the caller's code raises one.
"""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Entry:
    """One public name.

    Attributes:
      room: the module or package that exports it, as one imports it.
      name: the name; of a method, `Class.method`.
      node: where it is defined.
      owner: the class of a method.
      note: a constant's comment.
    """

    room: str
    name: str
    node: ast.AST
    owner: ast.ClassDef | None = None
    note: str = ""

    @property
    def doc(self) -> str:
        """Its docstring; that of `__init__` is never one. Empty where it has none."""
        if isinstance(self.node, ast.ClassDef | _Function):
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


def rooms(package: Path = ROOT / "prfl_jax") -> dict[str, Path]:
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
        if isinstance(node, ast.ClassDef | _Function) and node.name == name:
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


def _methods(owner: ast.ClassDef) -> Iterator[_Function]:
    for node in owner.body:
        if isinstance(node, _Function) and not node.name.startswith("_"):
            yield node


def entries() -> Iterator[Entry]:
    """Every public name, then its methods, room by room.

    Raises:
      KeyError: a name that is exported but defined nowhere.
    """
    for room, file in rooms().items():
        for name in sorted(_exported(_tree(file)), key=str.lower):
            path, node = _find(file, name)
            if isinstance(node, ast.ClassDef | _Function):
                yield Entry(room, name, node)
            else:
                yield Entry(room, name, node, note=_comment(path, node))
            if isinstance(node, ast.ClassDef):
                for method in _methods(node):
                    yield Entry(room, f"{name}.{method.name}", method, owner=node)


def signature(entry: Entry) -> str:
    """The name with its arguments and types, a constant with its value where that is short."""
    node, name = entry.node, entry.name
    if isinstance(node, _Function):
        if any(ast.unparse(d) in ("property", "functools.cached_property") for d in node.decorator_list):
            return f"{name}: {ast.unparse(node.returns) if node.returns else 'Any'}"
        arguments = ast.unparse(node.args)
        first, _, rest = arguments.partition(", ")
        if entry.owner is not None and first.partition(":")[0] in ("self", "cls"):
            arguments = rest
        return f"{name}({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    if isinstance(node, ast.ClassDef):
        return f"class {name}({_fields(node)})"
    value = ast.unparse(node.value)  # type: ignore[attr-defined]
    return f"{name} = {value}" if len(value) <= 100 else name


def _fields(node: ast.ClassDef) -> str:
    """What makes an object: the arguments of `__init__`, or the fields of a dataclass or a NamedTuple."""
    for part in node.body:
        if isinstance(part, _Function) and part.name == "__init__":
            return ast.unparse(part.args).partition(", ")[2]
    kinds = [ast.unparse(k) for k in (*node.decorator_list, *node.bases)]
    if not any("dataclass" in kind or "NamedTuple" in kind for kind in kinds):
        return ", ".join(ast.unparse(base) for base in node.bases)
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return ", ".join(ast.unparse(part) for part in fields)


def page() -> str:
    """The whole page, as Markdown."""
    out, room = [_HEAD], ""
    for entry in entries():
        if entry.room != room:
            room = entry.room
            about = ast.get_docstring(_tree(rooms()[room])) or ""
            out.append(f"## {room}\n\n{about.splitlines()[0] if about else ''}\n")
        level = "####" if entry.owner is not None else "###"
        body = [signature(entry), *([""] + entry.doc.splitlines() if entry.doc else [])]
        out.append(f"{level} {entry.name}\n\n```text\n" + "\n".join(body).rstrip() + "\n```\n")
    return "\n".join(out)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {sum(1 for _ in entries())} names")
