"""Penn TreeBank as language models use it: a folder with `ptb.train.txt` and `ptb.test.txt` (Mikolov et al. 2010)."""

from __future__ import annotations

import pathlib
from typing import Any

from prfl_jax.data.dataset import DATA_DIR_VARIABLE, Dataset, made
from prfl_jax.data.text.samples import language_data
from prfl_jax.data.text.vocabulary import END, UNKNOWN, Words
from prfl_jax.system.errors import UserError

FILES = {"train": "ptb.train.txt", "test": "ptb.test.txt"}  # ptb.valid.txt: held-out samples are training samples


def ptb(name: str, folder: pathlib.Path, cfg: Any) -> Dataset:
    """Windows of words with the next word at each position, an `<eos>` at the end of each line.

    Each word of the training file has a token; words of the test file that are not among them count as `<unk>`.

    Raises:
      UserError: a file is missing, no text, or without a window.
    """
    where = f"data.name={name}"
    words = {part: _words(where, folder / name / file) for part, file in FILES.items()}
    vocabulary = Words([words["train"]], len({*words["train"]} - {UNKNOWN}))
    streams = {part: [vocabulary.number(found)] for part, found in words.items()}
    arrays = language_data(where, streams["train"], streams["test"], cfg.context, vocabulary.tokens, by_stream=False)
    return made(name, arrays, f"ptb.train.txt and ptb.test.txt, windows of {cfg.context} words")


def _words(where: str, path: pathlib.Path) -> list[str]:
    if not path.is_file():
        raise UserError(
            f"{where}: no file {path} (set data.dir or {DATA_DIR_VARIABLE}); put {' and '.join(FILES.values())} "
            f"of Penn TreeBank, as prepared for language models, into {path.parent}"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: no text in UTF-8 ({str(e).splitlines()[0]}); fetch it again") from e
    return [word for line in lines if line.split() for word in (*line.split(), END)]
