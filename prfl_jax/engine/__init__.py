"""The device side of a run: the plan of a chunk, the jitted chunk, evaluation, memory and placement on devices."""
