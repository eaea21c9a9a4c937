"""The tables and figures of the PR-FL paper, made from runs of this package (`scripts/reproduce.py`)."""
