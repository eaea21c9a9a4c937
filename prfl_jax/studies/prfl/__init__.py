"""The tables and figures of the PR-FL paper, from runs of this package."""
