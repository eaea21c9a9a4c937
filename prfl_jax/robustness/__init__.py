"""Attacks by malicious clients, the update filter of the server, and the privacy accountant."""
