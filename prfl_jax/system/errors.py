"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a config, a flag, a file or a folder.

    Its text is one line that names the key or the file, the value, and what is
    allowed or what to run. Scripts print it and leave with exit code 2.
    """


class InUse(UserError):
    """Another process is writing to this folder; wait for it, or take another one."""


class NobodyLeft(UserError):
    """A window waits for a client and none will ever be there."""
