"""Text files of a user's, as spreadsheets, editors and other systems write them."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT

from prfl_jax import registry
from prfl_jax.clock.traces import read_availability, read_bandwidth
from prfl_jax.config import cli
from prfl_jax.report.html.runs import find_runs
from prfl_jax.report.schema import read_report
from prfl_jax.runtime.workdir import open_workdir
from prfl_jax.system.errors import UserError

BOM = b"\xef\xbb\xbf"
PLAIN = b"client,time,up,down\n2,5,2,4\n2,0,1,3\n0,0,.5,1e1\n"
# The same table, as others write it.
AS_OTHERS_WRITE = {
    "byte-order mark": BOM + PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "byte-order mark, CRLF": BOM + PLAIN.replace(b"\n", b"\r\n"),
    "no last line end": PLAIN[:-1],
    "blank lines": b"\n" + PLAIN + b"\n  \n\t\n\r\n",
    "rows of empty cells": PLAIN + b",,,\n,,,\n",
    "quoted": BOM + b'"client","time","up","down"\r\n"2","5","2","4"\r\n"2","0","1","3"\r\n"0","0",".5","1e1"\r\n',
    "spaces": b" client , time,up ,down\n 2 , 5, 2,4 \n2 ,0,1, 3\n0,0, .5,1e1\n",
    "spaces before quotes": b'"client", "time", "up", "down"\n2, "5", "2", "4"\n2,0,1,3\n0,0,.5,1e1\n',
    "header in capitals": PLAIN.replace(b"client,time", b"Client,TIME"),
    "clients as a data frame with gaps has them": b"client,time,up,down\n2.0,5.0,2,4\n2.0,0.0,1,3\n0.0,0,0.5,10.0\n",
}


@pytest.mark.parametrize("how", AS_OTHERS_WRITE)
def test_a_table_is_read_however_it_was_saved(tmp_path, how):
    (tmp_path / "speeds.csv").write_bytes(AS_OTHERS_WRITE[how])
    up, down = read_bandwidth(str(tmp_path / "speeds.csv"), 3)
    assert up.keys() == down.keys() == {0, 2}
    assert [up[2].rate(t, 1.0) for t in (0.0, 4.9, 5.0)] == [1e6, 1e6, 2e6]
    assert [down[2].rate(t, 1.0) for t in (0.0, 5.0)] == [3e6, 4e6]
    assert up[0].rate(9.0, 1.0) == 5e5 and down[0].rate(9.0, 1.0) == 1e7


REFUSED = {
    "UTF-16": (PLAIN.decode().encode("utf-16"), "cannot be read (it is not UTF-8, byte 0xff): allowed is a CSV"),
    "UTF-16, big end first": (b"\xfe\xff" + PLAIN.decode().encode("utf-16-be"), "it is not UTF-8, byte 0xfe"),
    "Latin-1": (PLAIN + b"# f\xfcr\n", "it is not UTF-8, byte 0xfc"),
    "semicolons": (PLAIN.replace(b",", b";"), "line 1 is 'client;time;up;down': allowed is a CSV file"),
    "semicolons, advice": (BOM + PLAIN.replace(b",", b";"), "is client,time,up,down, separated by commas"),
    "tabs": (PLAIN.replace(b",", b"\t"), "separated by commas"),
    "no header": (PLAIN.split(b"\n", 1)[1], "line 1 is '2,5,2,4'"),
    "header after blank lines": (b"\n\nclient,time\n", "line 3 is 'client,time'"),
    "only a byte-order mark": (BOM, "line 1 is 'empty'"),
    "decimal comma": (b'client,time,up,down\n0,0,"1,5",3\n', "line 2: '0,0,1,5,3': allowed are 4 numbers"),
    "an empty cell": (PLAIN + b"1,0,,3\n", "line 5: '1,0,,3'"),
    "nan": (PLAIN + b"1,0,nan,3\n", "line 5: up=nan: allowed is a number from 0.0001"),
    "infinite": (PLAIN + b"1,0,3,1e999\n", "line 5: down=inf: allowed is"),
    "minus infinity": (PLAIN + b"1,-inf,3,3\n", "line 5: time=-inf: allowed is a number from 0"),
    "client nan": (PLAIN + b"nan,0,3,3\n", "line 5: client=nan: allowed is a client's number from 0 to 2"),
    "client infinite": (PLAIN + b"inf,0,3,3\n", "line 5: client=inf"),
    "half a client": (PLAIN + b"1.5,0,3,3\n", "line 5: client=1.5"),
    "underscores": (PLAIN + b"0_1,0,3,3\n", "line 5: '0_1,0,3,3'"),
    "NUL": (PLAIN + b"1,0,\0,3\n", "line"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_is_no_such_table_is_refused_in_a_line(tmp_path, how):
    content, said = REFUSED[how]
    (tmp_path / "speeds.csv").write_bytes(content)
    with pytest.raises(UserError) as info:
        read_bandwidth(str(tmp_path / "speeds.csv"), 3)
    text = str(info.value)
    assert said in text and text.startswith("config.faults.bandwidth=") and "speeds.csv" in text and "\n" not in text


def test_a_time_that_is_not_finite_is_no_end_of_an_interval(tmp_path):
    for word in ("inf", "nan", "-inf"):
        (tmp_path / "there.csv").write_bytes(BOM + f"client,from,to\r\n0,0,{word}\r\n".encode())
        with pytest.raises(UserError, match=f"there.csv, line 2: to={word}: allowed is a number from 0 to 1e"):
            read_availability(str(tmp_path / "there.csv"), 3)
    (tmp_path / "there.csv").write_bytes(BOM + b"client,from,to\r\n0,0,8\r\n")
    assert read_availability(str(tmp_path / "there.csv"), 3) == {0: [(0.0, 8.0)]}


def test_python_json_and_flag_files_with_a_byte_order_mark(tmp_path):
    (tmp_path / "piece.py").write_bytes(BOM + b"def three():\n    return 3\n")
    assert registry.find_object(f"{tmp_path / 'piece.py'}:three", "config.data.name")() == 3
    config = BOM + b"from prfl_jax.config import default_config\n\n\ndef get_config():\n    return default_config()\n"
    (tmp_path / "config.py").write_bytes(config)
    assert cli.load_config(tmp_path / "config.py").seed == 0

    names = ("schema_version", "strategy", "seed", "curves", "final", "clients", "config", "ended", "metric")
    report = dict.fromkeys(names, {}) | {"strategy": "prfl", "seed": 1, "schema_version": 2}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_bytes(BOM + json.dumps(report).encode())
    assert read_report(tmp_path / "run" / "report.json") == report
    assert find_runs([tmp_path / "run"])[0].report == report

    with open_workdir(tmp_path / "claimed", {"a": 1}, "hash"):
        pass
    file = tmp_path / "claimed" / "config.json"
    file.write_bytes(BOM + file.read_bytes())
    with open_workdir(tmp_path / "claimed", {"a": 1}, "hash"):
        pass


@pytest.mark.slow
def test_flag_files(tmp_path):
    def said(content):
        (tmp_path / "flags.txt").write_bytes(content)
        command = [sys.executable, "scripts/clock.py", f"--flagfile={tmp_path / 'flags.txt'}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    flags = b"--config=configs/none_such.py\r\n"
    for content in (flags, BOM + flags, BOM + b"# a remark\r\n" + flags, BOM + b"\r\n" + flags):
        assert "--config=configs/none_such.py: cannot be read" in said(content), content
    assert "--flagfile: is not UTF-8 (byte 0xff); save it as UTF-8" in said(flags.decode().encode("utf-16"))
