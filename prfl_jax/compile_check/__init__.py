"""Compiles a run's programs for an accelerator that is not here: do they compile, do they fit, what do they move?

It runs nothing, so it says nothing of results or of real seconds.
"""
