"""The rows of the suite `kernels`."""

KERNELS = [
    "levels", "levels_tied", "local_training", "local_training_masked", "local_training_importance",
    "maskfedavg", "fedavg", "dispatch", "split_model", "evaluation",
]  # fmt: skip
