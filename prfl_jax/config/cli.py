"""The command line of the scripts: `--config=FILE`, `--config.a.b=value`, `--help`, errors in one line (exit code 2).

A script defines its own absl flags and ends with `cli.run_with_config(main)` (or
`cli.run(main)` where it needs no config). Every mistake of the user, whether in a
flag, in the config file or found later as a `UserError`, becomes one line on
stderr and exit code 2. Nothing here imports or sets up jax.
"""

from __future__ import annotations

import ast
import copy
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from absl import app, flags
from ml_collections import config_dict

from prfl_jax import strategies
from prfl_jax.config.canonical import assign, flatten
from prfl_jax.config.defaults import default_config
from prfl_jax.config.schema import RULES, unknown
from prfl_jax.config.validate import validate
from prfl_jax.system import console, early
from prfl_jax.system.errors import UserError, refuse, shorten, shown
from prfl_jax.system.files import ADVICE, cannot, user_path
from prfl_jax.system.source_file import compile_file

T = TypeVar("T")
Overrides = Mapping[str, object] | Iterable[tuple[str, object]]

_CONFIG_ARGUMENT = re.compile(r"--?(?P<no>no)?config(?:\.(?P<key>[^=]*))?(?:=(?P<value>.*))?", re.DOTALL)
_TRUE, _FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")
# keys whose meaning has a page
_CLOCK_KEYS = ("strategy", "window.close", "window.k", "window.dispatch", "transport.name", "transport.bytes")
_HELP = ("--help", "-help", "--helpshort", "-helpshort", "-?", "-h")


# --- from a file and overrides to a config ---


def load_config(path: str | Path, overrides: Overrides = ()) -> config_dict.ConfigDict:
    """Reads a config file, applies overrides, checks the whole.

    An override of `strategy` writes that strategy's row over the file's choices
    first, wherever it stands; then the others apply in their order, the last one
    of a key winning.

    Examples:
      >>> config = load_config("configs/quickstart.py", {"strategy": "fedavg", "local.lr": "0.1"})
      >>> config.window.close, config.local.lr
      ('all', 0.1)

    Args:
      path: a Python file with `get_config() -> ConfigDict`.
      overrides: dotted key -> value, or such pairs; text is read as on the command line.

    Returns:
      The config, locked.

    Raises:
      UserError: the file cannot be read or run, a key does not exist, or a value
        is not allowed.
    """
    found = _load_file(user_path("--config", path))
    flatten(found)  # before it is copied: it may hold itself
    frozen = isinstance(found, config_dict.FrozenConfigDict)
    cfg = (config_dict.ConfigDict(found) if frozen else copy.deepcopy(found)).unlock()
    values: dict[str, object] = {}
    for key, value in overrides.items() if isinstance(overrides, Mapping) else overrides:
        values.pop(key, None)
        values[key] = parse_value(key, value) if isinstance(value, str) else value
    if "strategy" in values:
        strategies.use(cfg, str(values.pop("strategy")))
    for key, value in values.items():
        assign(cfg, key, value)
    validate(cfg)
    return cfg.lock()


def parse_value(key: str, text: str) -> object:
    """The text of an override in the key's own type; `None` where the key may be None.

    Tuples are written `"(1, 2.5)"` or `1,2.5`; flags true/false, 1/0 or yes/no.

    Raises:
      UserError: no such key, or text that is not of its type.
    """
    if key not in RULES:
        raise unknown(key, text)
    rule = RULES[key]
    if rule.optional and text.strip().lower() == "none":
        return None
    try:
        if rule.many:
            return _parse_tuple(text, rule.type)
        if rule.type is bool:
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.strip().lower()]
        return rule.type(text)
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise refuse(key, text, rule.allowed) from None


def _parse_tuple(text: str, type_: type) -> tuple[object, ...]:
    try:
        value = ast.literal_eval(text.strip() or "()")
    except (ValueError, SyntaxError):
        if type_ is not str:
            raise
        value = [part.strip() for part in text.strip("() ").split(",") if part.strip()]
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _load_file(path: Path) -> config_dict.ConfigDict:
    return load_python("config", path, "get_config", config_dict.ConfigDict, "an ml_collections ConfigDict")


def load_python(flag: str, path: Path, name: str, kind: type[T], words: str) -> T:
    """What a function of a user's Python file returns.

    Args:
      flag: that names the file.
      name: of the function, which takes nothing.
      kind: of what it returns; `words` say the same.

    Raises:
      UserError: the file cannot be read or run, or has no such function.
    """
    try:
        source = path.read_bytes()
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        example = {"config": "a config file, as in --config=configs/quickstart.py"}.get(flag, "a Python file")
        raise UserError(f"--{flag}={path}: cannot be read ({reason}); give {example}") from None
    space: dict[str, object] = {"__name__": f"{flag}_file", "__file__": str(path)}
    allowed = f"allowed is a Python file that defines {name}() and returns {words}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about the user's file
            code = compile_file(source, str(path))
        exec(code, space)
        function = space.get(name)
        if not callable(function):
            raise UserError(f"--{flag}={path}: there is no function {name}; {allowed}")
        found = function()
    except UserError as e:
        raise e if str(path) in str(e) else UserError(f"--{flag}={path}: {e}") from None
    except (Exception, SystemExit) as e:
        raise UserError(f"--{flag}={path}: {_where(e, path)}") from None
    if not isinstance(found, kind):
        raise UserError(f"--{flag}={path}: {name}() returns {shown(found)} ({type(found).__name__}); {allowed}")
    return found


def _where(error: BaseException, path: Path) -> str:
    """What went wrong in a config file: its line, the error, and what the key named there may be."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    number, code = (lines[-1].lineno, lines[-1].line or "") if lines else (getattr(error, "lineno", None), "")
    at = f"line {number}: {shorten(code.strip())}: " if code else f"line {number}: " if number else ""
    target = re.match(r"\s*\w+\.([\w.]+)\s*=[^=]", code)
    if target is not None and target[1] not in RULES:
        return f"{at}{unknown(target[1])}"
    allowed = f"; allowed is {RULES[target[1]].allowed}" if target is not None else ""
    return f"{at}{type(error).__name__}: {_said(error)}{allowed}"


def _said(error: BaseException) -> str:
    try:
        return shorten(error.msg if isinstance(error, SyntaxError) else str(error.args[0] if error.args else error))
    except Exception:  # a user's own class may fail at this too
        return "(no message)"


# --- the command line ---


def split_argv(argv: Sequence[str]) -> tuple[str | None, list[tuple[str, str]], list[str]]:
    """Takes `--config` and its overrides out of a command line.

    Args:
      argv: the arguments, the program's name first.

    Returns:
      The config file (None: not given), the overrides as (dotted key, text) in
      their order, and the other arguments.

    Raises:
      UserError: an override of a key that does not exist, or without a value.
    """
    path: str | None = None
    pairs: list[tuple[str, str]] = []
    rest = list(argv[:1])
    todo = list(argv[1:])
    while todo:
        argument = todo.pop(0)
        if argument == "--":
            return path, pairs, [*rest, argument, *todo]
        match = _CONFIG_ARGUMENT.fullmatch(argument)
        if match is None or (match["no"] and match["key"] is None):
            rest.append(argument)
            continue
        key, value = match["key"], match["value"]
        if key is not None and key not in RULES:
            raise unknown(key, *([] if value is None else [value]))
        is_flag = key is not None and RULES[key].type is bool
        if match["no"]:
            if not is_flag or value is not None:
                raise UserError(f"{argument}: allowed is --noconfig.KEY for a key that is True or False")
            value = "false"
        elif value is None and is_flag:
            value = "true"
        elif value is None:
            if not todo:
                allowed = RULES[key].allowed if key is not None else "a config file, such as configs/quickstart.py"
                raise UserError(f"{argument} has no value: allowed is {allowed}")
            value = todo.pop(0)
        if key is None:
            path = value
        else:
            pairs.append((key, value))
    return path, pairs, rest


def run(main: Callable[[], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parses the flags, runs `main`, and leaves with its exit code (None: 0).

    `argv` defaults to `sys.argv`. A mistake of the user ends in one line and exit code 2.
    """
    _run(lambda args: _call(main, args), argv, "")


def run_with_arguments(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """As `run`, for a script that takes files or folders besides its flags: passes them to `main`."""
    _run(lambda args: main(flags.FLAGS(list(args))[1:]), argv, "")


def run_with_config(
    main: Callable[[config_dict.ConfigDict], int | None], argv: Sequence[str] | None = None
) -> NoReturn:
    """As `run`, for a script that needs a config: reads it and passes it to `main`."""
    if "config" not in flags.FLAGS:
        flags.DEFINE_string("config", None, "the config file; --config.KEY=VALUE overrides one of its keys")
    _run(lambda args: _call_with_config(main, args), argv, _config_help())


def _call(main: Callable[[], int | None], args: Sequence[str]) -> int | None:
    _parse_flags(args)
    return main()


def _call_with_config(main: Callable[[config_dict.ConfigDict], int | None], args: Sequence[str]) -> int | None:
    path, overrides, rest = split_argv(args)
    _parse_flags(rest)
    if path is None:
        raise UserError("--config is missing: give a config file, as in --config=configs/quickstart.py")
    flags.FLAGS["config"].value = path
    return main(load_config(path, overrides))


def _parse_flags(args: Sequence[str]) -> None:
    left = flags.FLAGS(list(args))
    if len(left) > 1:
        raise UserError(f"argument {left[1]!r}: allowed are flags only, as in --name=value")


def _run(call: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None, more_help: str) -> NoReturn:
    args = list(sys.argv if argv is None else argv)
    said: object = None
    early.main_runs = True
    try:
        code = _code(call, args, more_help)
        sys.stdout and sys.stdout.flush()
    except (UserError, flags.Error) as e:
        said = e
    except BrokenPipeError:
        _leave_quietly(128 + signal.SIGPIPE)
    except OSError as e:  # code closer to the file has raised no UserError
        if e.errno not in ADVICE:
            raise
        said = cannot(e.filename or "a file", "be read or written", e)
    except MemoryError as e:
        said = f"not enough memory ({e}): take fewer clients, a smaller model or smaller batches"
    except ValueError as e:
        if not _of_environment(e):
            raise
        said = f"{e}; allowed is what JAX's documentation says of that variable, or to unset it"
    except KeyboardInterrupt:
        _leave_quietly(128 + signal.SIGINT)
    finally:
        early.main_runs = False
    if said is None:
        sys.exit(code)
    line = " ".join(str(said).split())
    # unprintable characters (of a file's name, a key, a value) are written as escapes
    console.say(f"{Path(args[0]).name}: {''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)}")
    sys.exit(2)


def _code(call: Callable[[Sequence[str]], int | None], args: Sequence[str], more_help: str) -> int | None:
    # Not absl's app.run: it leaves flag errors with a usage page and code 1, and makes libraries log at INFO.
    app.define_help_flags()
    if "config" in flags.FLAGS:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["config"])
    if any(argument in _HELP for argument in args[1:]):
        app.usage(shorthelp=True, writeto_stdout=True)
        print(more_help)
        return 0
    return call(_flag_files(args))


def _of_environment(error: BaseException) -> bool:
    """Whether JAX refuses a variable of the environment, which it does while it is imported."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.replace("\\", "/").endswith("jax/_src/config.py")


def _leave_quietly(code: int) -> NoReturn:
    """Ends without a message: nobody reads it, or Ctrl-C came where there is nothing to save."""
    console.flush()
    sys.exit(code)


def _flag_files(args: Sequence[str]) -> list[str]:
    """The arguments with those of `--flagfile=FILE`, whose text may begin with a byte-order mark."""
    try:
        found = flags.FLAGS.read_flags_from_files(args, force_gnu=False)
    except UnicodeDecodeError as e:
        raise UserError(f"--flagfile: is not UTF-8 (byte {e.object[e.start]:#04x}); save it as UTF-8") from None
    bare = [argument.removeprefix("\ufeff") for argument in found]
    return [b for b, argument in zip(bare, found, strict=True) if b == argument or b.strip() and b[:1] != "#"]


def _config_help() -> str:
    defaults = flatten(default_config())
    more = dict.fromkeys(_CLOCK_KEYS, "; see docs/clock.md")
    lines = [f"  {key} ({shown(defaults[key])}): {rule.allowed}{more.get(key, '')}" for key, rule in RULES.items()]
    return "\n".join(["", "Keys of a config (default): what is allowed", *lines])
