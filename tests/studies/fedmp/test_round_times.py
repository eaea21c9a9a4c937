"""Fig. 5 against times by hand: FLOP over speed, bytes over MB/s."""

import pytest
from study_reports import material, rows_of

from prfl_jax.studies.fedmp import round_times
from prfl_jax.studies.fedmp.smoke import SIZE_MB, smoke

CNN = smoke().columns[0]


def test_times_of_a_round_by_hand():
    config = round_times.fixed_ratio(CNN, 0.4)
    config.clients.sigma = config.server.sigma = 0.0
    size = round_times.size_of(config)
    computing, sending = round_times.mean_times(config, 3, size)
    share = size.value_bytes(60) / size.value_bytes(100)
    assert size.value_bytes(100) == pytest.approx(SIZE_MB * 1e6, rel=1e-6) and 0.3 < share < 0.6
    seconds = [SIZE_MB * share * (1 / up + 1 / down)
               for up, down in zip(config.clients.up_mb_s, config.clients.down_mb_s, strict=True)]  # fmt: skip
    assert sending == pytest.approx(sum(seconds) / 10, rel=1e-5)
    samples = config.local.steps * config.local.batch_size
    flop = 3 * (sum(size.layer_flop) * size.flop_share(60) + size.rest_flop) * samples
    assert computing == pytest.approx(sum(flop / speed for speed in config.clients.flop_s) / 10, rel=1e-6)


def test_the_table_falls_with_the_ratio(tmp_path):
    round_times.fig5(material(tmp_path, (CNN,), {}, mark="A TEST"))
    rows = rows_of(tmp_path / "fig5.csv")
    assert [float(row["ratio"]) for row in rows] == [k / 10 for k in range(10)]
    both = [float(row["both, s"].replace(",", "")) for row in rows]
    assert both == sorted(both, reverse=True) and both[0] > 5 * both[-1] > 0
    assert "A TEST" in (tmp_path / "fig5.svg").read_text()
