"""What is not federated learning: errors, files, signals, processes, the environment."""
