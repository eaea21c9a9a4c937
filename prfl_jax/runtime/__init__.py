"""A run from its config to its report: experiment, simulation, loop through simulated time, checkpoints, records."""
