"""Which ratios a bandit's agents gave: counted over the dispatches that follow its decisions."""

import pytest

from prfl_jax.report.ratios import LAST, RatioTotals


def window(percents):
    return {"client_bytes_down": [[client, 1] for client in percents], "percents": list(percents.values())}


def test_ratios_are_counted_by_hand():
    totals = RatioTotals(3)
    totals.add_window(window({0: 100, 1: 100, 2: 100}))  # before any decision
    assert totals.of(0) == {}
    totals.begin()
    for percents in ({0: 100, 1: 45}, {0: 91, 1: 40}, {0: 90, 1: 1}):
        totals.add_window(window(percents))
    assert totals.of(0)["ratios"]["tenths"] == [2, 1] + [0] * 8  # ratios 0, .09 and .10
    assert totals.of(0)["ratios"]["mean_last"] == pytest.approx((0 + 0.09 + 0.10) / 3)
    assert totals.of(1)["ratios"]["tenths"] == [0] * 5 + [1, 1, 0, 0, 1]  # .55, .60, .99
    assert totals.of(2)["ratios"] == {"tenths": [0] * 10, "mean_last": None, "last": 0}


def test_the_mean_is_of_the_latest_dispatches():
    totals = RatioTotals(1)
    totals.begin()
    ratios = [7 * n % 96 for n in range(LAST + 37)]
    for ratio in ratios:
        totals.add_window(window({0: 100 - ratio}))
    found = totals.of(0)["ratios"]
    assert found["last"] == LAST and sum(found["tenths"]) == LAST + 37
    assert found["mean_last"] == pytest.approx(sum(ratios[-LAST:]) / LAST / 100)
