"""Times the suite `kernels` of one commit, a row at each request, in a process with that commit first in PYTHONPATH.

Called by `commit_speed.py` as `python commit_kernels_worker.py SIZE REPEATS`; speaks the protocol of `worker.py`. Each
`next` measures the next row and answers its name and its least time in s. After the last row the answer is null once,
and the suite begins again.
"""

import importlib
import json
import os
import sys


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    from prfl_jax.startup import before_jax

    before_jax()
    try:
        kernels = importlib.import_module("prfl_jax.benchmarks.kernels")
    except ModuleNotFoundError:
        kernels = importlib.import_module("prfl_jax.bench.kernels")  # the room's name until 1317056
    suite = kernels.KernelSuite(sys.argv[1], int(sys.argv[2]), race=False)
    rows = suite.rows()

    def answer(**what: object) -> None:
        print(json.dumps(what), file=answers, flush=True)

    answer(kernels=kernels.__file__)
    for _ in sys.stdin:
        row = next(rows, None)
        if row is None:
            rows = suite.rows()
            answer(kernel=None, seconds=None)
        else:
            answer(kernel=row.kernel, seconds=min(row.runs))


if __name__ == "__main__":
    main()
