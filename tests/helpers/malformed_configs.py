"""More than 200 malformed configs, the same ones every time: what a hurried or unlucky user may write."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from prfl_jax.config.schema import RULES, Rule

SEED = 20261121
HEAD = """from prfl_jax import config, strategies
from ml_collections import config_dict
import datetime, decimal, fractions, sys
import numpy

class Silent(Exception):
    def __str__(self): raise ValueError("no words")

class Shy:
    def __repr__(self): raise ValueError("no words")

def get_config():
    c = config.default_config()
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A config that is refused.

    Attributes:
      name: of the test.
      says: words of the one line: the key or the file's line, and what is allowed.
      file: the config file's content; None: configs/quickstart.py.
      overrides: of the command line.
    """

    name: str
    says: tuple[str, ...]
    file: str | bytes | None = None
    overrides: tuple[str, ...] = ()


def cases() -> list[Case]:
    """All, in an order that does not change."""
    draw = random.Random(SEED)
    return [*_texts(draw), *_near_misses(draw), *_objects(draw), *_contradictions(draw), *_files(), *_of_the_data()]


def _wrong_texts(rule: Rule) -> list[str]:
    """Texts of the command line that this key cannot take."""
    none = [] if rule.optional else ["None", "none"]
    if rule.many:
        wrong = ["(1,", "(0.5;2)", "((1,2),3)", "{1: 2}", "(1e999,)", "(True,)", "[None]", "(" * 900, "lambda"]
        return wrong if rule.type is str else [*wrong, "9" * 5000]
    if rule.type is bool:
        return ["maybe", "2", "", "tru", "(True)", "yes!", *none]
    if rule.type is int:
        return ["1.5", "1e3", "abc", "", "9" * 30, "9" * 5000, "nan", "-1", "0x10", "(1)", "1;", "²", "1\u200b", *none]
    if rule.type is float:
        return ["nan", "inf", "-inf", "1e400", "-1e-5", "1,5", "abc", "", "(1.0)", "1.0.0", "\U0001d7ce\u0301", *none]
    return []


def _texts(draw: random.Random) -> Iterator[Case]:
    """A wrong text or two for every key that is not free text."""
    for key, rule in RULES.items():
        wrong = _wrong_texts(rule)
        if rule.type is str and not rule.many:
            if key in ("data.name", "data.dir", "model.name", "faults.availability", "faults.bandwidth"):
                continue
            good = rule.allowed.removeprefix("one of ").split(", ")[0]
            wrong = [good.upper(), f"{good} ", f"{good}\u200b", good[:-1], good[::-1], f"{good},{good}", "", "None"]
        for text in draw.sample(wrong, 2 if len(wrong) > 8 else 1):
            yield Case(f"{key}={text[:12]!r}", (f"config.{key}=", rule.allowed), overrides=(f"--config.{key}={text}",))


def _near_misses(draw: random.Random) -> Iterator[Case]:
    """Keys with a slip of the finger; the right one is named."""
    for key in draw.sample([key for key in RULES if len(key) > 7], 24):
        at = draw.randrange(len(key) - 3, len(key))
        slips = [key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key.replace("_", "-"), key.title(), key + "s"]
        wrong = draw.choice([slip for slip in slips if slip not in RULES])
        says = (f"config.{wrong}", "does not exist: did you mean")
        yield Case(f"key {wrong}", says, overrides=(f"--config.{wrong}=1",))
    odd = ("", ".", "..", "window..dt_s", "a" * 5000, "\u202ewindow", "window.dt_s ", "data\x1b[31m", "💥", "seed.x")
    for wrong in odd:
        yield Case(f"key {wrong[:9]!r}", ("config.", "does not exist: "), overrides=(f"--config.{wrong}=1",))


def _objects(draw: random.Random) -> Iterator[Case]:
    """Objects of Python in a file, where the type of a key is not looked at."""
    wrong = [
        "10**5000", "-10**400", "fractions.Fraction(10**400, 3)", "decimal.Decimal('NaN')", "numpy.arange(3)", "b'iid'",
        "{1, 2}", "{'a': 1}", "lambda: 1", "Shy()", "1j", "datetime.date(2026, 1, 1)", "numpy.float32('nan')", "...",
        "[[]]", "(None,)", "float('-inf')", "numpy.ones((2, 2))", "type", "range(3)", "numpy.datetime64('NaT')",
    ]  # fmt: skip
    keys = [key for key in RULES if key != "data.dir"]  # which each command gives besides
    for n, key in enumerate(draw.sample(keys, 48)):
        group, _, leaf = key.rpartition(".")
        holder, value = f"c.{group}" if group else "c", wrong[n % len(wrong)]
        line = f"    with {holder}.ignore_type():\n        {holder}.{leaf} = {value}\n    return c\n"
        # a group, or a number that ConfigDict itself cannot turn into the key's type, is told with the line
        says = ("config.",) if value == "{'a': 1}" else (RULES[key].allowed,) if value != "-10**400" else ("allowed",)
        yield Case(f"{key} = {value}", (leaf, *says), HEAD + line)


def _contradictions(draw: random.Random) -> Iterator[Case]:
    """Keys that are possible alone."""
    for number in (3, 7, 11, 13):
        for key in ("clients.up_mb_s", "clients.down_mb_s", "clients.flop_s"):
            length = draw.choice([n for n in range(2, 15) if number % n])
            speeds = ",".join(["2"] * length)
            others = {k: "1" for k in ("clients.up_mb_s", "clients.down_mb_s") if k != key}
            changes = {"clients.number": str(number), **others, key: speeds}
            yield Case(
                f"{length} {key} of {number} clients",
                (f"config.{key}=", f"clients.number={number}", f"not {length}"),
                overrides=tuple(f"--config.{k}={v}" for k, v in changes.items()),
            )
    several: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        (("clients.up_mb_s=()",), ("config.clients.up_mb_s=()", "not 0")),
        (("window.close=k_arrivals", "window.k=11"), ("config.window.k=11",)),
        (("window.close=all", "window.dispatch=on_arrival"), ("config.window.dispatch=",)),
        (("density.name=tiers", "density.tiers=()"), ("config.density.tiers=()", "at least one density")),
        (("density.name=tiers_recovery", "density.tiers=()"), ("config.density.tiers=()",)),
        (("window.cohort=11",), ("config.window.cohort=11",)),
        (("strategy=fedavg", "window.cohort=3", "aggregation.name=buffered_maskfedavg"), ("window.cohort=3",)),
        (("data.partition=writer", "data.name=mnist_by_writer", "data.writers=3"), ("config.data.writers=3",)),
        (("local.batch_size=600", "data.train_limit=5000"), ("config.data.train_limit=5000", "6000")),
        (("submodel.name=full",), ("config.density.name=",)),
        (("engine.train=pending", "submodel.importance=client_sq_grad"), ("config.engine.train=",)),
        (("engine.models=host", "engine.devices=2"), ("config.engine.devices=2",)),
        (("compare=fedavg", "engine.models=host", "engine.devices=3"), ("config.engine.devices=3",)),
        (("stop_early=True", "data.holdout_fraction=0"), ("config.data.holdout_fraction=0",)),
        (("data.split_writers_over=30",), ("config.data.split_writers_over=30",)),
        (("strategy=heterofl", "submodel.name=nested"), ("config.local.name=",)),
    ]
    for changes, says in several:
        yield Case(" ".join(changes), says, overrides=tuple(f"--config.{change}" for change in changes))


def _files() -> Iterator[Case]:
    """Files that are no configs, or fail on the way."""
    here = f"line {HEAD.count(chr(10)) + 1}"
    bodies = {
        "required placeholder": ("    c.rounds = config_dict.required_placeholder(int)", "config.rounds"),
        "reference to nothing": ("    c.window.dt_s = c.get_oneway_ref('horizon_s') * 2", "config.window.dt_s"),
        "holds itself": ("    c.loop = c", "config.loop"),
        "a group holds the whole": ("    c.window.loop = c", "config.window.loop"),
        "a key is the whole": ("    del c.seed\n    c.seed = c", "config.seed"),
        "a number as a key": ("    c[3] = 3", "keys of several types"),
        "a line break in a key": ("    c['a\\nb'] = 3", "config.a b=3 does not exist"),
        "a dot in a key": ("    c['window.dt_s'] = 3", "dots"),
        "a very long key": ("    c['x' * 100_000] = 3", "does not exist"),
        "leaves": ("    sys.exit()", "SystemExit"),
        "leaves with words": ("    sys.exit('bye')", "bye"),
        "leaves well": ("    raise SystemExit(0)", "SystemExit"),
        "an error without words": ("    raise Silent", "Silent"),
        "an error of many lines": ("    raise ValueError('a\\r\\nb\\u2028c')", "ValueError: a b c"),
        "an error of many words": ("    raise ValueError('x' * 100_000)", "ValueError"),
        "an error that holds the config": ("    raise ValueError(c)", "HERE"),
        "half a pair of letters": ("    raise ValueError('\\ud800')", "HERE"),
        "several errors": ("    raise ExceptionGroup('two', [ValueError(1), ValueError(2)])", "ExceptionGroup"),
        "asserts": ("    assert c.rounds < 0, 'too many'", "too many"),
        "divides by zero": ("    c.rounds = 1 // 0", "HERE: c.rounds = 1 // 0|allowed is an integer from 1"),
        "much memory": ("    x = 'a' * 10**13", "MemoryError"),
        "without end": ("    return get_config()", "RecursionError"),
        "a group away": ("    del c.window", "config.window.close is missing"),
        "an empty group": ("    c.window = config_dict.ConfigDict()", "config.window={} is a group"),
        "a group made a number": ("    del c.window\n    c.window = 3", "config.window=3 is a group"),
        "a group that is not there": ("    c.windows.dt_s = 3", "did you mean window.dt_s"),
        "a key in a key": ("    c.rounds.x = 3", "config.rounds.x does not exist"),
        "called": ("    c()", "not callable"),
        "locked": ("    c.lock()\n    c.nokey = 1", "config.nokey does not exist"),
        "a dict": ("    return c.to_dict()", "allowed is a Python file that defines get_config()"),
        "text": ("    return c.to_yaml()", "allowed is a Python file that defines get_config()"),
        "nothing": ("    return None", "returns None (NoneType)"),
        "a list": ("    return [c]", "(list)"),
        "the class": ("    return config_dict.ConfigDict", "ConfigDict"),
        "an empty one": ("    return config_dict.ConfigDict()", "config.seed is missing"),
        "a generator": ("    yield c", "generator"),
        "a strategy alone": ("    c.strategy = 'fedavg'", "strategies.use"),
        "no strategy": ("    strategies.use(c, 'fedsgd')", "config.strategy='fedsgd'"),
        "a wide letter": ("    c.window.dt_s = '１４'", "c.window.dt_s = |allowed is a finite number|HERE"),
    }
    for name, (body, says) in bodies.items():
        yield Case(name, tuple(says.replace("HERE", here).split("|")), f"{HEAD}{body}\n    return c\n")
    whole: dict[str, tuple[str | bytes, str]] = {
        "an empty file": ("", "no function get_config"),
        "an open bracket": ("x = (\n", "line 1: SyntaxError"),
        "tabs and spaces": ("def get_config():\n\tx = 1\n        return x\n", "line 3: TabError"),
        "brackets in brackets": ("x = " + "(" * 300 + ")" * 300, "SyntaxError"),
        "a sign before a sign": ("x = " + "-" * 100_000 + "1", "Error"),
        "an encoding of nobody": (b"# -*- coding: nonsense -*-\n", "nonsense"),
        "bytes of a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "Error"),
        "utf-16": ("def get_config(): pass\n".encode("utf-16"), "Error"),
        "latin-1": ("n = 'é'\n".encode("latin-1"), "Error"),
        "wants an argument": ("def get_config(x):\n    return x\n", "missing 1 required positional argument"),
        "not a function": ("get_config = 3\n", "no function get_config"),
        "a lambda": ("get_config = lambda: 3\n", "returns 3 (int)"),
        "a class": ("class get_config: pass\n", "(get_config)"),
        "json": ('{"seed": 0, "rounds": 10}\n', "no function get_config"),
        "yaml": ("seed: 0\nrounds: 10\nwindow:\n  dt_s: 14\n", "SyntaxError"),
        "a merge that stopped": ("<<<<<<< HEAD\nx = 1\n=======\n", "line 1: SyntaxError"),
        "async": ("async def get_config(): pass\n", "coroutine"),
        "a module that is not there": ("import no_such_module\n", "No module named"),
        "an odd comparison": ("x = 1 is 1\ndef get_config(): return '\\d'\n", "(str)"),
    }
    for name, (content, said) in whole.items():
        yield Case(name, (said,), content)


def _of_the_data() -> Iterator[Case]:
    """What only data and model can tell."""
    long = "a" * 300
    for change, *says in [
        ("data.name=nowhere.npz", "nowhere.npz"),
        (f"data.name={long}.npz", "no file"),
        (f"data.name={'d/' * 250}x.npz", "no file"),
        ("data.name=~nobody_here/x.npz", "no file"),
        ("data.name=tfds:no_such_set_of_data", "no_such_set_of_data"),
        ("data.name=mnist", "config.data.name='mnist'"),
        ("data.name=cifar10", "prepare_data.py"),
        ("data.name=", "config.data.name=''"),
        ("data.dir=", "config.data.dir=''"),
        ("model.name=nothing_of_that_name:Net", "config.model.name", "nothing_of_that_name"),
        ("model.name=nowhere.py:Net", "config.model.name"),
        (f"model.name={long}.py:Net", "config.model.name"),
        ("model.name=math:sin", "config.model.name"),
        ("model.name=math:Net", "config.model.name"),
        ("model.name=this is no module", "config.model.name='this is no module'"),
        ("model.name=vgg11", "config.model.name"),
        ("model.classes=3", "config.model.classes", "at least the data's 10"),
        ("data.partition=writer", "config.data.partition='writer'"),
        ("data.holdout_fraction=0.00001", "config.data.holdout_fraction"),
        ("clients.number=500", "too few", "take a larger data.alpha, fewer clients"),
        ("clients.number=5000", "clients.number=5000", "allowed is at most"),
        ("clients.number=1000000000", "clients.number=1000000000", "allowed is at most"),
        ("local.batch_size=100000", "batch"),
        ("data.train_limit=5", "config.data.train_limit=5"),
        ("engine.devices=1000", "config.engine.devices=1000"),
    ]:
        yield Case(change[:60], tuple(says), overrides=(f"--config.{change}",))
