"""Tasks: what is learned and how it is scored: kinds of samples, targets, loss of a sample, metric and its direction.

Nothing here imports JAX before a function of the device is called.
"""

from prfl_jax.tasks.checks import CHECKS, default_thresholds, is_level, levels_text
from prfl_jax.tasks.choices import TASKS, find_task
from prfl_jax.tasks.plugin_check import check_task
from prfl_jax.tasks.sample import FEATURES, IMAGES, KINDS, PADDING, SEQUENCES, SampleKind, SampleSpec, kind_of
from prfl_jax.tasks.scores import Scores
from prfl_jax.tasks.task import ACCURACY, CLASSIFICATION, PERPLEXITY, Metric, Task

__all__ = [
    "ACCURACY",
    "CHECKS",
    "CLASSIFICATION",
    "FEATURES",
    "IMAGES",
    "KINDS",
    "PADDING",
    "PERPLEXITY",
    "SEQUENCES",
    "TASKS",
    "Metric",
    "SampleKind",
    "SampleSpec",
    "Scores",
    "Task",
    "check_task",
    "default_thresholds",
    "find_task",
    "is_level",
    "kind_of",
    "levels_text",
]
