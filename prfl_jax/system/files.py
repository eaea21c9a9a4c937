"""Writes files atomically (whole or not at all), and words errors about paths."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prfl_jax.system.errors import UserError, first_line

_ROOM = "free some space there, then give the same command again"
_ALLOW = "let this user write there, then give the same command again"
_MOVE = "move away what is there, then give the same command again"
# what to do where the system refuses a file
ADVICE = {
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM,
    errno.EACCES: _ALLOW, errno.EPERM: _ALLOW, errno.EROFS: _ALLOW,
    errno.EISDIR: _MOVE, errno.ENOTDIR: _MOVE, errno.EEXIST: _MOVE, errno.ELOOP: _MOVE, errno.ENOTEMPTY: _MOVE,
    errno.ENAMETOOLONG: "use a shorter name", errno.EIO: "the disk fails: use another one",
}  # fmt: skip


def system_error(error: BaseException) -> int | None:
    """The `errno` behind an error of the operating system, also where a library reports it in words only."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return next((number for number in ADVICE if os.strerror(number) in str(error)), None)


def cannot(path: str | os.PathLike[str], what: str, error: BaseException) -> UserError:
    """The error of a file that the system refuses, with what to do (to be raised).

    Args:
      what: "be written", "be read", ...
    """
    number = system_error(error)
    said = os.strerror(number) if number else first_line(error)[:200]
    advice = ADVICE.get(number, "correct that, then give the same command again") if number else "then try again"
    return UserError(f"{os.fspath(path)}: cannot {what} ({said}); {advice}")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A hidden file beside `path`, to be written inside; then it takes `path`'s place, or is removed after an error.

    Raises:
      UserError: the system does not let it be written (no space, no permission, ...).
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield part
            with open(part, "rb") as written:
                os.fsync(written.fileno())  # else a power failure may leave an empty file under the final name
            os.replace(part, path)
        except OSError as error:
            raise cannot(path, "be written", error) from error
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file as a whole, or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def user_path(flag: str, path: str | os.PathLike[str]) -> Path:
    """A path as the user means it: `~` and `~NAME` are homes, wherever a shell leaves them as they are.

    Raises:
      UserError: there is no user of that name; the text names the flag.
    """
    text = os.fspath(path)
    home = os.path.expanduser(text)
    if home == text and text.startswith("~"):
        name = text.partition("/")[0]
        raise UserError(f"{flag}={text}: there is no user {name[1:]!r}; a folder of that name is ./{name}")
    return Path(home)


def check_letters(flag: str, path: str | os.PathLike[str]) -> None:
    """Raises UserError for a folder whose name, or that of one above it, is not UTF-8: no checkpoint goes there."""
    try:
        os.path.abspath(os.fspath(path)).encode()
    except UnicodeEncodeError:
        shown = ascii(os.path.abspath(os.fspath(path)))[1:-1]
        raise UserError(f"{flag}={shown}: allowed is a folder whose whole path is UTF-8, for checkpoints") from None


def refuse_address(flag: str, path: str | os.PathLike[str]) -> None:
    """Raises UserError for an address such as gs://..., where only a place on this machine will do."""
    if re.match(r"\w{2,}:/", os.fspath(path)):
        raise UserError(f"{flag}={os.fspath(path)}: allowed is a place on this machine, not an address")


def output_file(flag: str, value: str | None, example: str, kind: str = "JSON") -> Path:
    """The file that a flag such as --out names.

    Raises:
      UserError: no value, a folder, or a place that cannot be written to.
    """
    if not value:
        raise UserError(f"{flag} is missing: give the {kind} file to write, as in {flag}={example}")
    refuse_address(flag, value)
    path = user_path(flag, value)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{flag}={value}: allowed is a file in a folder that exists and can be written to")
    return path


def check_folder(flag: str, folder: Path) -> None:
    """Whether the folder is one to write to.

    Raises:
      UserError: it is not; names the flag.
    """
    refuse_address(flag, folder)
    check_letters(flag, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError as error:
        raise UserError(f"{flag}={folder}: {error.strerror}; allowed is a folder that can be written to") from None
    if not usable:
        raise UserError(f"{flag}={folder}: not writable; allowed is a folder that can be written to")
