"""Which optimisers take the same steps in a narrower network."""

import pytest

from prfl_jax.local.entry_check import steps_by_entry
from prfl_jax.local.factories import OptaxFactory, of_optax


@pytest.mark.parametrize(
    ("name", "kept", "same"),
    [
        ("adamw", True, True),
        ("lamb", False, True),
        ("lamb", True, False),  # moments of masked entries are in the norm of the step
        ("adafactor", False, False),  # sums of rows and columns, and a mean over all entries
    ],
)
def test_steps_of_what_is_left_do_not_depend_on_masked_entries(name, kept, same):
    assert steps_by_entry(OptaxFactory(of_optax(name)), kept) == same


def test_a_factory_that_raises_takes_no_such_steps():
    assert not steps_by_entry(OptaxFactory(lambda learning_rate: 1 / 0), False)
