"""Studies: the papers' tables and figures measured here, beside the printed numbers; a comparison of defences."""
