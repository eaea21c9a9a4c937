"""metrics.jsonl: exact numbers, and what a resumed run keeps of it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prfl_jax.report import MetricsWriter, metrics_line, read_metrics
from prfl_jax.system.errors import UserError


def window(number, **more):
    return {"kind": "window", "window": number, **more}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)), st.integers())
def test_numbers_return_to_the_bit(values, count):
    read = json.loads(metrics_line(window(1, values=values, count=count)))
    assert [value.hex() for value in read["values"]] == [value.hex() for value in values]
    assert read["count"] == count


def test_float32_numbers_are_read_back_exactly(path):
    losses = np.float32([0.1, 1 / 3, 1e-38])
    with MetricsWriter(path) as writer:
        writer.write(window(1, loss=losses, best=np.float32(0.7), arrivals=np.arange(3), hit=np.bool_(True)))
    (record,) = read_metrics(path)
    assert (np.float32(record["loss"]) == losses).all()
    assert np.float32(record["best"]) == np.float32(0.7)
    assert record["arrivals"] == [0, 1, 2] and record["hit"] is True


def test_numbers_that_are_not_finite_become_null_and_are_flagged():
    line = metrics_line(window(1, loss=[0.5, math.nan], mask={"accuracy": np.float32("inf")}, ok=[1.0]))
    assert "NaN" not in line and "Infinity" not in line
    record = json.loads(line)
    assert record["loss"] == [0.5, None] and record["mask"] == {"accuracy": None}
    assert record["not_finite"] == ["loss", "mask"]
    assert "not_finite" not in json.loads(metrics_line(window(1, loss=[0.5])))


def test_values_json_cannot_hold_are_refused(path):
    with MetricsWriter(path) as writer:
        with pytest.raises(TypeError, match="object"):
            writer.write(window(1, what=object()))
        writer.write(window(1, where=path))
    assert [record["where"] for record in read_metrics(path)] == [str(path)]


def test_each_record_can_be_read_as_soon_as_it_is_written(path):
    writer = MetricsWriter(path)
    for number in (1, 2):
        writer.write(window(number))
        assert [record["window"] for record in read_metrics(path)] == list(range(1, number + 1))
    writer.sync()
    writer.close()
    writer.close()


def write_run(path):
    with MetricsWriter(path) as writer:
        writer.write({"kind": "eval", "window": 0, "t_s": 0.0})
        for number in range(1, 6):
            writer.write(window(number, end_s=number / 3))
            writer.write({"kind": "eval", "window": number, "t_s": 100.0 * number})
        writer.write({"kind": "end", "window": 5, "how": "interrupted"})


def kinds_and_windows(path):
    return [(record["kind"], record["window"]) for record in read_metrics(path)]


def test_resume_goes_on_from_the_length_a_checkpoint_noted(path):
    with MetricsWriter(path) as writer:
        writer.write(window(1))
        writer.sync()
        noted, before = writer.bytes_written(), path.read_bytes()
        writer.write(window(2))
    with MetricsWriter(path) as writer:
        assert writer.bytes_written() > noted
        writer.truncate_at(noted)
        assert path.read_bytes() == before and writer.bytes_written() == noted
        writer.write(window(3))
    assert kinds_and_windows(path) == [("window", 1), ("window", 3)]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_start_drops_everything(path):
    write_run(path)
    with MetricsWriter(path) as writer:
        writer.truncate_at(0)
        writer.write(window(1))
    assert kinds_and_windows(path) == [("window", 1)]


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_line_cut_at_the_end_is_dropped(path, cut):
    write_run(path)
    path.write_bytes(path.read_bytes() + metrics_line(window(6)).encode()[:cut])
    assert kinds_and_windows(path)[-1] == ("end", 5)


def test_a_whole_line_without_its_line_end_is_taken_as_cut(path):
    write_run(path)
    path.write_bytes(path.read_bytes() + b'{"kind":"window","window":12}')
    assert kinds_and_windows(path)[-1] == ("end", 5)


def test_a_file_shorter_than_its_checkpoint_is_refused(path):
    write_run(path)
    before = path.read_bytes()
    with MetricsWriter(path) as writer:
        with pytest.raises(UserError, match=f"has {len(before)} bytes, .* after {len(before) + 1}"):
            writer.truncate_at(len(before) + 1)
        assert path.read_bytes() == before


def test_a_damaged_line_in_the_middle(path):
    write_run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = b"\x00" * 9 + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(UserError, match="line 6 is damaged"):
        list(read_metrics(path))


def test_a_missing_file_says_what_makes_it(path):
    with pytest.raises(UserError, match="no such file.*train.py"):
        list(read_metrics(path))
