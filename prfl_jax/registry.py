"""Finds the object that a name in a config stands for: a built-in choice, or a plugin from a user's file.

A plugin is named `module:object` or `FILE.py:object`. Loading it runs the file, as any import does; nothing is
unpickled. Each room has a `Registry` of its choices and is the only place that knows their names. Nothing here imports
JAX, so that a plugin that needs none can be loaded without it.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
import traceback
import types
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from prfl_jax.system.errors import UserError, refuse
from prfl_jax.system.source_file import compile_file

WORDS = "module:object or FILE.py:object"
# Keys whose value may name a plugin.
KEYS = (
    *("model.name", "data.name", "data.partition", "density.name", "submodel.name", "aggregation.name"),
    *("window.close", "transport.name", "local.name", "local.optimizer", "local.lr_schedule", "aggregation.optimizer"),
    "task.name",
)

_SPEC = re.compile(r"(?!tfds:)([^\0]+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*")  # tfds: names a data set
_sources: dict[str, bytes] = {}  # spec -> the file as it was when it was run

__all__ = ["Registry", "find_object"]

Choice = TypeVar("Choice")


@dataclasses.dataclass(frozen=True)
class Lazy:
    """A built-in choice that is imported only when it is found, so that its table imports no JAX.

    Args:
      where: `module:object`.
    """

    where: str

    def load(self) -> Any:
        """The object; imports its module."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class Form(Generic[Choice]):
    """A form of values that stand for one choice, such as `tfds:NAME`, or for a choice each.

    Args:
      words: what such a value is, for `--help` and errors.
      matches: whether a value has that form.
      choice: what it stands for.
      load: from a value to what it stands for; None: all stand for `choice`.
    """

    words: str
    matches: Callable[[str], bool]
    choice: Choice | None = None
    load: Callable[[str], Choice] | None = None

    def of(self, value: str) -> Choice:
        """What a value of this form stands for."""
        return cast(Choice, self.choice) if self.load is None else self.load(value)


class Registry(Generic[Choice]):
    """The choices of one config key: built-ins by name, and plugins where the key takes them.

    Examples:
      >>> orders = Registry("data.order", {"shuffled": "at random", "sorted": "by label"})
      >>> orders.find("sorted")
      'by label'
      >>> orders.allowed
      'one of shuffled, sorted'

    Args:
      key: the dotted config key, `aggregation.name`.
      choices: the built-ins by name; `Lazy` ones are imported when they are found.
      accept: turns a loaded plugin into a choice, or raises `UserError` (see `wrong`); None: no plugin is taken.
      forms: values other than names and plugins, tried in order.
    """

    def __init__(
        self,
        key: str,
        choices: Mapping[str, Choice | Lazy],
        accept: Callable[[str, Any], Choice] | None = None,
        forms: Sequence[Form[Choice]] = (),
    ) -> None:
        self.key, self._choices, self._accept, self._forms = key, dict(choices), accept, tuple(forms)

    @property
    def takes_plugins(self) -> bool:
        """Whether a plugin may be named."""
        return self._accept is not None

    @property
    def allowed(self) -> str:
        """What the key may be, in words, for `--help` and errors."""
        others = [form.words for form in self._forms] + [WORDS] * self.takes_plugins
        return "".join([f"one of {', '.join(self)}", *(f", or {words}" for words in others)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __contains__(self, name: object) -> bool:
        """Whether a built-in has that name."""
        return name in self._choices

    def accepts(self, name: str) -> bool:
        """Whether the key may have that value, as far as its form tells; a plugin is not loaded."""
        return name in self._choices or self._form(name) is not None or (self.takes_plugins and is_own(name))

    def find(self, name: str) -> Choice:
        """The choice of that name.

        Raises:
          UserError: there is no such built-in, or the plugin cannot be loaded or is none of this kind.
        """
        if name in self._choices:
            return self._built_in(name)
        form = self._form(name)
        if form is not None:
            return form.of(name)
        if self._accept is None or not is_own(name):
            raise refuse(self.key, name, self.allowed)
        return self._accept(name, find_object(name, f"config.{self.key}"))

    def known(self, name: str) -> Choice | None:
        """What is known of a choice before plugins are loaded: the built-in of that name or form, else None."""
        if name in self._choices:
            return self._built_in(name)
        form = self._form(name)
        return None if form is None else form.of(name)

    def with_trait(self, trait: Callable[[Choice], bool]) -> list[str]:
        """Names of the built-ins that have a trait, for "allowed is ..."."""
        return [name for name in self._choices if trait(self._built_in(name))]

    def _built_in(self, name: str) -> Choice:
        choice = self._choices[name]
        return cast(Choice, choice.load()) if isinstance(choice, Lazy) else choice

    def _form(self, name: str) -> Form[Choice] | None:
        return next((form for form in self._forms if form.matches(name)), None)


def is_own(name: str) -> bool:
    """Whether a config's value has the form `module:object` or `FILE.py:object`."""
    return _SPEC.fullmatch(name) is not None


def find_object(spec: str, key: str) -> Any:
    """The object that `spec` names. A file is run once a process, and again where it has changed.

    Args:
      spec: `package.module:object`, or `path/file.py:object`, the path seen from the working folder.
      key: of the config, for the text of an error: `config.model.name`.

    Raises:
      UserError: there is no such file, module or object, or running it fails; one line.
    """
    where, _, name = spec.rpartition(":")
    where = os.path.expanduser(where)  # leaves `~NAME` as it is where there is no such user
    try:
        if not is_own(spec):
            raise UserError("it is not of that form")
        module = _run_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        _sources[spec] = _source(module)
        if not where.endswith(".py") and not _utf8(getattr(module, "__file__", None) or ""):
            raise UserError("JAX takes only files whose whole path is UTF-8; give it as FILE.py:object, or move it")
        if not hasattr(module, name):
            has = ", ".join(other for other in vars(module) if not other.startswith("_"))
            raise UserError(f"there is no {name} in it; it has {has or 'nothing'}")
        return getattr(module, name)
    except UserError as error:
        raise UserError(f"{key}: {spec!r} cannot be loaded ({error}); allowed: {WORDS}") from error
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise UserError(f"{key}: {spec!r} cannot be loaded ({_said(error, where)}); allowed: {WORDS}") from error


def wrong(key: str, spec: str, found: object, allowed: str) -> UserError:
    """The error for an object that is not what its key takes (to be raised)."""
    kind = "the class" if isinstance(found, type) else f"a {type(found).__name__}:"
    return UserError(f"{key}: {spec!r} is {kind} {one_line(found)}; allowed: {allowed}")


def call(key: str, spec: str, function: Callable[..., Any], *args: Any) -> Any:
    """What a plugin's function returns, called before a run has begun.

    Raises:
      UserError: the function raised; one line, with the line of the user's file.
    """
    try:
        return function(*args)
    except UserError:
        raise
    except Exception as error:  # whatever a user's own code raises
        where = os.path.expanduser(spec.rpartition(":")[0])
        file = str(getattr(sys.modules.get(where), "__file__", where))
        raise UserError(f"{key}: {spec!r} failed ({_said(error, file)})") from error


def sources(config: Any) -> tuple[bytes, ...]:
    """The content of the files of all plugins that a config names, as it was when they were loaded.

    Files that those import are not among them.
    """
    named = [config[key.split(".")[0]][key.split(".")[1]] for key in KEYS]
    return tuple(_sources[name] for name in named if name in _sources)


def _run_file(path: Path) -> types.ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path.resolve()}: {error.strerror}") from None
    # The module gets a name of its own, so that the file hides no other module; dataclasses look the name up in
    # sys.modules. Python's own loader is not used: its cache of compiled files does not notice that a file changed
    # twice within a second.
    name = f"prfl_own_{zlib.crc32(os.fsencode(path.resolve())):08x}_{zlib.crc32(source):08x}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile_file(source, _code_name(path)), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _code_name(path: str | Path) -> str:
    """The file name for compiled code; JAX writes it into its programs and can write only UTF-8."""
    return str(path).encode(errors="backslashreplace").decode()


def _utf8(path: str) -> bool:
    return path == _code_name(path)


def _source(module: types.ModuleType) -> bytes:
    file = getattr(module, "__file__", None)
    return Path(file).read_bytes() if file is not None and Path(file).is_file() else b""


def _said(error: BaseException, file: str) -> str:
    """`line 3: ValueError: its first line`; the line of the user's file, where one is known."""
    file = _code_name(file)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else lines[-1] if lines else None
    said = error.msg if isinstance(error, SyntaxError) else (str(error).strip().splitlines() or [""])[0]
    return f"{f'line {line}: ' if line else ''}{type(error).__name__}{f': {said}' if said else ''}"


def one_line(value: object) -> str:
    """`repr` of a user's object, on one line and not long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's own class
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."
