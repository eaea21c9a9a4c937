"""Everything that is not federated learning: errors, files, signals, processes, cloud storage, environment."""
