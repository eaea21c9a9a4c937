"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prfl_jax.errors import UserError


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
            raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole file or none."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def output_file(flag: str, value: str | None, example: str, kind: str = "JSON") -> Path:
    """The file that a flag such as --out names.

    Raises:
      UserError: no value, a folder, or a place that cannot be written to.
    """
    if not value:
        raise UserError(f"{flag} is missing: give the {kind} file to write, as in {flag}={example}")
    path = Path(value)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"{flag}={value}: allowed is a file in a folder that exists and can be written to")
    return path


def check_folder(flag: str, folder: Path) -> None:
    """Whether the folder is one to write to.

    Raises:
      UserError: it is not; names the flag.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError as error:
        raise UserError(f"{flag}={folder}: {error.strerror}; allowed is a folder that can be written to") from None
    if not usable:
        raise UserError(f"{flag}={folder}: not writable; allowed is a folder that can be written to")
