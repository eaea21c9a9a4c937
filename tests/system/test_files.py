"""Files that are written whole or not at all."""

import pytest

from prfl_jax.system.errors import UserError
from prfl_jax.system.files import output_file, replacing, write_text


def test_a_file_is_replaced_only_when_all_of_it_is_there(tmp_path):
    file = tmp_path / "report.json"
    write_text(file, "old")
    with pytest.raises(UserError, match="report.json: cannot be written .disk full"), replacing(file) as part:
        part.write_text("ne")
        assert file.read_text() == "old"
        raise OSError("disk full")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    with replacing(file) as part:
        part.write_text("new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("value", [None, "", ".", "nowhere/out.json"])
def test_a_place_that_cannot_be_written_is_named(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--out"):
        output_file("--out", value, "clock.json")
    assert output_file("--out", "out.json", "clock.json").name == "out.json"
