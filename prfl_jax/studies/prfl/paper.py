"""The numbers printed in the PR-FL paper (Tables III to V), for the columns beside ours."""

from __future__ import annotations

# Table III: updates of clients 1 to 10 in 10,000 windows.
TABLE3 = {
    "fedasyn": (10000, 9940, 9878, 9548, 5484, 4517, 2822, 2460, 2453, 1999),
    "prfl_norecover": (10000, 9951, 9936, 9986, 9935, 9923, 9995, 9952, 9968, 9997),
}

# Table IV: simulated s to a test accuracy; (data set, distribution) -> accuracy -> method -> s, None: never.
TABLE4: dict[tuple[str, str], dict[float, dict[str, int | None]]] = {}
_TABLE4_ROWS = {
    "prfl": (26300, 29700, 39100, 52500, 10700, 12400, 23400, 26900),
    "heterofl_windowed": (40900, 44500, 70900, 97900, 17700, 23200, 40900, 41600),
    "fedfix": (48000, 59100, 108700, 111500, 20300, 25700, 43900, 57400),
    "fedasyn": (70100, 82800, 113700, 172500, 39300, 40100, 61200, 81600),
    "fedavg": (202200, 210900, None, None, 136300, 136700, None, None),
}
_TABLE4_COLUMNS = [
    (("cifar10", distribution), accuracy) for accuracy in (0.80, 0.84) for distribution in ("iid", "non-iid")
] + [(("femnist", distribution), accuracy) for accuracy in (0.80, 0.835) for distribution in ("iid", "non-iid")]
for _method, _row in _TABLE4_ROWS.items():
    for (_column, _accuracy), _seconds in zip(_TABLE4_COLUMNS, _row, strict=True):
        TABLE4.setdefault(_column, {}).setdefault(_accuracy, {})[_method] = _seconds

# Table V: test accuracy at 250,000 s (CIFAR-10) and 140,000 s (FEMNIST); it prints 25,000 and 14,000.
_TABLE5_ROWS = {
    "prfl": (0.8712, 0.8685, 0.8597, 0.8521),
    "heterofl_windowed": (0.8661, 0.8472, 0.8459, 0.8432),
    "fedfix": (0.8665, 0.8543, 0.8520, 0.8444),
    "fedasyn": (0.8634, 0.8541, 0.8413, 0.8326),
    "fedavg": (0.8234, 0.8191, 0.7922, 0.7984),
}
_TABLE5_COLUMNS = (("cifar10", "iid"), ("cifar10", "non-iid"), ("femnist", "iid"), ("femnist", "non-iid"))
TABLE5 = {
    column: {method: row[place] for method, row in _TABLE5_ROWS.items()} for place, column in enumerate(_TABLE5_COLUMNS)
}

MAIN = tuple(_TABLE4_ROWS)
ABLATIONS = ("prfl_syn", "prfl_nobuff", "prfl_fedavg", "prfl_nores", "prfl_norecover")
EXTRAS = ("heterofl", "heterofl_recovery", "fedasync", "fedbuff")
