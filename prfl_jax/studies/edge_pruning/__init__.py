"""The edge pruning study (Zhou et al., Electronics 2024): masks that clients choose themselves."""
