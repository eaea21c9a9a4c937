"""The device side of a run: the jitted chunk of windows, its plan, the evaluation, and where arrays lie."""
