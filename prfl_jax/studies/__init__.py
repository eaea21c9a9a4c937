"""The paper's tables and figures, measured here and set beside what it printed."""
