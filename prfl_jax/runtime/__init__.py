"""From a config to a report: experiment, simulation, the loop through simulated time, checkpoints, records, workdir."""
