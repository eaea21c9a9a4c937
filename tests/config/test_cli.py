"""Config files and the command line: what they accept, and how they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from marked import slow
from paths import ROOT

from prfl_jax.clock import network_from_config
from prfl_jax.config import cli
from prfl_jax.config.canonical import flatten
from prfl_jax.config.schema import RULES
from prfl_jax.system.errors import UserError

CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.name != "base.py")
QUICKSTART = ROOT / "configs" / "quickstart.py"

SCRIPT = '''
"""A tiny script."""
import sys
from absl import flags
from prfl_jax.config import cli
from prfl_jax.system.errors import UserError
WORKDIR = flags.DEFINE_string("workdir", None, "a folder")

def main(cfg):
    assert "jax" not in sys.modules
    if WORKDIR.value == "full":
        raise UserError("full: a folder of another run,\\n  give another one")
    print(cfg.strategy, cfg.window.close, cfg.rounds, WORKDIR.value)
    return 3 if WORKDIR.value == "three" else None

cli.run_with_config(main)
'''


def config_file(tmp_path: Path, *lines: str, head: str = "from prfl_jax import config, strategies") -> Path:
    path = tmp_path / "mine.py"
    body = "\n".join(f"    {line}" for line in ("c = config.default_config()", *lines, "return c"))
    path.write_text(f"{head}\n\n\ndef get_config():\n{body}\n")
    return path


def refusal(path, overrides=()) -> str:
    with pytest.raises(UserError) as info:
        cli.load_config(path, overrides)
    return str(info.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_its_docstring_gives_its_command(path):
    cli.load_config(path)
    doc = path.read_text().split('"""')[1]
    assert f"--config=configs/{path.name}" in doc
    assert "Time" in doc and "esult" in doc


# --- overrides ---


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("rounds", "7", 7),
        ("window.dt_s", "10", 10.0),
        ("window.dt_s", "1e1", 10.0),
        ("horizon_s", "None", None),
        ("horizon_s", "5", 5.0),
        ("data.train_limit", "none", None),
        ("data.dir", "None", None),
        ("data.dir", "some/folder", "some/folder"),
        ("stop_early", "true", True),
        ("stop_early", "False", False),
        ("stop_early", "0", False),
        ("clients.up_mb_s", "(1.,2.)", (1.0, 2.0)),
        ("clients.up_mb_s", "1, 2.5", (1, 2.5)),
        ("clients.up_mb_s", "[3]", (3,)),
        ("clients.flop_s", "()", ()),
        ("clients.flop_s", "", ()),
        ("eval.thresholds", "0.5", (0.5,)),
        ("compare", "fedavg", ("fedavg",)),
        ("compare", "fedavg,prfl_norecover", ("fedavg", "prfl_norecover")),
        ("compare", "('fedavg',)", ("fedavg",)),
        ("compare", "()", ()),
    ],
)
def test_text_is_read_in_the_type_of_its_key(key, text, value):
    assert cli.parse_value(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("rounds", "abc"),
        ("rounds", "1.5"),
        ("rounds", "None"),
        ("window.dt_s", "fast"),
        ("window.dt_s", "None"),
        ("stop_early", "maybe"),
        ("clients.up_mb_s", "(1,"),
        ("clients.up_mb_s", "fast,slow"),
        ("clients.up_mb_s", "(" * 5000),
    ],
)
def test_text_of_a_wrong_type_is_refused_with_what_is_allowed(key, text):
    with pytest.raises(UserError) as info:
        cli.parse_value(key, text)
    assert str(info.value).startswith(f"config.{key}='{text[:20]}")
    assert str(info.value).endswith(f": allowed is {RULES[key].allowed}")


def test_overrides_apply_in_order_to_a_checked_locked_config():
    cfg = cli.load_config(QUICKSTART, [("rounds", "5"), ("window.dt_s", "3"), ("rounds", "6")])
    assert (cfg.rounds, cfg.window.dt_s) == (6, 3.0)
    with pytest.raises(AttributeError):
        cfg.window.dt = 3
    assert "clients.number=10" in refusal(QUICKSTART, {"clients.up_mb_s": "(1.,2.,3.)"})
    in_turn = cli.load_config(QUICKSTART, {"clients.up_mb_s": "(1.,2.)", "clients.flop_s": "1e9"})
    assert network_from_config(in_turn).client_up == (1.0, 2.0) * 5
    said = refusal(QUICKSTART, {"local.lr": -0.1})
    assert said == "config.local.lr=-0.1: allowed is a finite number > 0 (from 1e-09 to 1e+38)"
    assert refusal(QUICKSTART, {"local.rate": 0.1}) == "config.local.rate=0.1 does not exist: did you mean local.name?"


def test_strategy_switches_the_row_and_other_overrides_win():
    plain = flatten(cli.load_config(QUICKSTART, {"strategy": "fedavg"}))
    assert plain["window.close"] == "all" and plain["transport.name"] == "one_copy"
    assert plain["window.dt_s"] == flatten(cli.load_config(QUICKSTART))["window.dt_s"]
    cfg = cli.load_config(QUICKSTART, [("window.close", "fixed"), ("strategy", "fedavg")])
    assert (cfg.strategy, cfg.window.close, cfg.submodel.name) == ("fedavg", "fixed", "full")
    assert "prfl, prfl_norecover, " in refusal(QUICKSTART, {"strategy": "fedsgd"})


def test_a_file_may_override_its_row(tmp_path):
    path = config_file(tmp_path, "strategies.use(c, 'fedavg')", "c.window.close = 'fixed'")
    assert cli.load_config(path).window.close == "fixed"
    assert cli.load_config(path, {"strategy": "fedavg"}).window.close == "all"


def test_a_flag_can_correct_a_wrong_type_of_the_file(tmp_path):
    path = config_file(tmp_path, "c.rounds = True")
    assert refusal(path) == "config.rounds=True: allowed is an integer from 1 to 1000000000"
    assert cli.load_config(path, {"rounds": "4"}).rounds == 4


# --- config files that cannot be used ---


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.rounds = 'abc'", ["line 6: c.rounds = 'abc'", "allowed is an integer from 1 to 1000000000"]),
        ("c.windw.dt_s = 3", ["line 6", "config.windw.dt_s does not exist: did you mean window.dt_s?"]),
        ("c.density.min_density = 2.0", ["config.density.min_density=2.0", "in (0, 1]"]),
        ("c.window.dt = 2.0", ["config.window.dt=2.0 does not exist: did you mean window.dt_s?"]),
        ("c = 3", ["returns 3 (int)", "ConfigDict"]),
        ("raise ValueError('two\\nlines')", ["line 6", "ValueError: two"]),
        ("strategies.use(c, 'foo')", ["mine.py: config.strategy='foo'", "prfl, prfl_norecover, "]),
        ("c.strategy = 'fedavg'", ["config.strategy='fedavg'", "strategies.use"]),
    ],
)
def test_mistake_in_a_file_is_told_with_its_line_or_key(tmp_path, line, words):
    text = refusal(config_file(tmp_path, line))
    assert all(word in text for word in words), text


def test_files_that_are_no_configs(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.py")
    assert "directory" in refusal(tmp_path).lower()
    path = tmp_path / "mine.py"
    for source, word in [
        ("x = (\n", "line 1: SyntaxError"),
        ("x = 1\n", "no function get_config"),
        ("import no_such_module\n", "line 1: import no_such_module: ModuleNotFoundError"),
        ("get_config = 3\n", "no function get_config"),
        ("x = '\0'\n", "null bytes"),
    ]:
        path.write_text(source)
        assert word in refusal(path), source


# --- the command line ---


def test_split_argv_takes_the_config_and_leaves_the_rest():
    argv = "x --config=a.py --workdir=w --config.rounds=3 --config.window.dt_s 4 --config.stop_early".split()
    argv += ["--noconfig.engine.unroll", "-config.seed=1", "--configs=7", "--noconfig", "--", "--config.seed=2"]
    assert cli.split_argv(argv) == (
        "a.py",
        [
            ("rounds", "3"),
            ("window.dt_s", "4"),
            ("stop_early", "true"),
            ("engine.unroll", "false"),
            ("seed", "1"),
        ],
        ["x", "--workdir=w", "--configs=7", "--noconfig", "--", "--config.seed=2"],
    )
    assert cli.split_argv(["x", "--config", "a.py"]) == ("a.py", [], ["x"])
    assert cli.split_argv(["x"]) == (None, [], ["x"])


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.windw.dt_s=3", "config.windw.dt_s='3' does not exist: did you mean window.dt_s?"),
        ("--config.data=x", "config.data='x' is a group"),
        ("--config.zzz", "config.zzz does not exist: allowed are seed, strategy"),
        ("--config.rounds", "no value: allowed is an integer from 1 to 1000000000"),
        ("--config", "no value: allowed is a config file"),
        ("--noconfig.rounds", "for a key that is True or False"),
        ("--noconfig.stop_early=1", "for a key that is True or False"),
    ],
)
def test_split_argv_refuses(argument, words):
    with pytest.raises(UserError) as info:
        cli.split_argv(["x", argument])
    assert words in str(info.value)


def script(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "tiny.py"
    path.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # also where the package is not installed
    return subprocess.run([sys.executable, path, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_a_script_runs_with_file_flags_and_overrides_without_jax(tmp_path):
    out = script(tmp_path, "--config.rounds=3", "--config=configs/quickstart.py", "--config.strategy=fedavg")
    assert (out.returncode, out.stdout, out.stderr) == (0, "fedavg all 3 None\n", "")
    flagfile = tmp_path / "flags"
    flagfile.write_text("--config=configs/quickstart.py\n--config.rounds=4\n--workdir=three\n")
    out = script(tmp_path, f"--flagfile={flagfile}")
    assert (out.returncode, out.stdout) == (3, "prfl fixed 4 three\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config.rounds=abc"], "config.rounds='abc': allowed is an integer from 1 to 1000000000"),
        slow(["--workdirr=x"], "Unknown command line flag 'workdirr'. Did you mean: workdir ?"),
        slow(["extra"], "argument 'extra': allowed are flags only, as in --name=value"),
        slow(["--workdir=full"], "full: a folder of another run, give another one"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, arguments, line):
    out = script(tmp_path, "--config=configs/quickstart.py", *arguments)
    assert (out.returncode, out.stdout, out.stderr) == (2, "", f"tiny.py: {line}\n")


def test_without_config_and_help(tmp_path):
    out = script(tmp_path)
    assert out.returncode == 2 and out.stderr.startswith("tiny.py: --config is missing: give a config file")
    out = script(tmp_path, "--help")
    assert out.returncode == 0 and "A tiny script" in out.stdout
    assert all(f"  {key} (" in out.stdout for key in RULES)


def test_run_without_a_config(capsys):
    for main, code in [(lambda: None, None), (lambda: 0, 0), (lambda: 4, 4)]:
        with pytest.raises(SystemExit) as info:
            cli.run(main, ["prog"])
        assert info.value.code == code

    def fails():
        raise UserError("data.npz: not there")

    with pytest.raises(SystemExit) as info:
        cli.run(fails, ["some/prog.py"])
    assert info.value.code == 2
    assert capsys.readouterr().err == "prog.py: data.npz: not there\n"
