"""Runs the experiments of one commit in a separate process, with that commit's folder first in PYTHONPATH.

`commits.py` calls it as `python commit_worker.py OUT < cases.json` in the commit's folder. It uses only
`prfl_jax.load_config` and `prfl_jax.Experiment`, so that it runs with older and newer commits.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    import prfl_jax

    out = Path(sys.argv[1])
    print(f"{out.name}: {Path(prfl_jax.__file__).parent}", file=sys.stderr, flush=True)
    for name, overrides in json.load(sys.stdin).items():
        if (out / name / "report.json").exists():
            continue
        overrides = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
        config = prfl_jax.load_config("configs/quickstart.py", overrides)
        prfl_jax.Experiment(config).run(out / name, progress=False)
        print(f"{out.name}: {name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
