"""Makes the tables and figures of a paper, and runs what is missing for them.

    python scripts/reproduce.py --what=table3
    python scripts/reproduce.py --what=all --preset=smoke
    python scripts/reproduce.py --what=all --preset=cpu --seeds=3
    python scripts/reproduce.py --paper=fedmp --what=fig8 --preset=cpu
    python scripts/reproduce.py --paper=edge_pruning --what=table3 --preset=cpu
    python scripts/reproduce.py --what=table4 --preset=cpu --settings=mnist_by_writer --change=local.lr=1.0 --out=DIR

`--what` is all, or one of
  --paper=prfl: table3, table4, table5, fig8, fig9, fig10
  --paper=fedmp: table3, table4, fig2, fig4, fig5, fig6, fig7, fig8, fig9, fig10, fig11, fig12, ratios, mixtures, floor
  --paper=edge_pruning: table2, table3, fig5, fig6, fig7, fig8, fig9, fig10, fig11, fig12, fig13, similarity

A run is done if its report, `runs/SETTING/METHOD_seedN.json` under --out, has the config that the
preset has now; delete the file to repeat the run. An interrupted run is resumed. The same
command in two shells shares the runs between them. PR-FL's `table3` needs no training. `smoke` takes about
three minutes on two CPU cores, `cpu` hours, and `full`, the paper's own setting, needs an accelerator.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.config import cli
from prfl_jax.studies.reproduce import Request, reproduce
from prfl_jax.studies.study import STUDIES

_PAPER = flags.DEFINE_string("paper", "prfl", f"the study: {' | '.join(STUDIES)}")
_WHAT = flags.DEFINE_string("what", "all", "what to make: a table or figure of the paper, or all (listed above)")
_PRESET = flags.DEFINE_string("preset", "cpu", "size of the runs: full | cpu | smoke")
_SEEDS = flags.DEFINE_integer("seeds", 1, "number of seeds (0, 1, ...) of each run")
_OUT = flags.DEFINE_string(
    "out",
    None,
    "folder to write to; by default results/PRESET, for smoke runs/smoke (another paper than prfl: PAPER_PRESET)",
)
_ONLY = flags.DEFINE_list("only", [], "run only these methods")
_SETTINGS = flags.DEFINE_list("settings", [], "only these settings of the preset, such as mnist_by_writer")
_CHANGE = flags.DEFINE_list("change", [], "keys of the config to change for all methods alike: local.lr=1.0,...")
_BUDGET_S = flags.DEFINE_float("budget_s", None, "start no run that would not end within this many seconds")
_WORK = flags.DEFINE_string("work", None, "folder of unfinished runs; by default runs/reproduce-PRESET")


def main() -> int:
    return reproduce(
        Request(
            what=_WHAT.value,
            preset=_PRESET.value,
            paper=_PAPER.value,
            seeds=_SEEDS.value,
            out=_OUT.value,
            only=_ONLY.value,
            settings=_SETTINGS.value,
            changes=_CHANGE.value,
            budget_s=_BUDGET_S.value,
            work=_WORK.value,
        )
    )


if __name__ == "__main__":
    cli.run(main)
