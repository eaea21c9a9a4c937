"""Sub-models: sizes, nested masks, pruning by importance, the delta split.

`size` and `layers` are NumPy-only and used by the clock; import the others directly.
"""
