"""Makes `spoken_digits`: the digits from zero to nine as Debian's `espeak-ng` says them in several voices."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence

import numpy as np

from prfl_jax.data.audio import librosa, log_mel
from prfl_jax.data.prepare import new_file, write_npz
from prfl_jax.data.sequences import stacked
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import FEATURES

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# an accent and a variant each; the number of a voice here is the writer of what it says
VOICES = (
    *("en-gb+m1", "en-gb+f1", "en-us+m3", "en-us+f2", "en-gb-scotland+m7", "en-gb-scotland+f3"),
    *("en-gb-x-rp+m2", "en-gb-x-rp+f4", "en-029+m4", "en-029+f5", "en-gb-x-gbcwmd+m5", "en-gb-x-gbclan+f2"),
)
SPEEDS = (110, 135, 160, 185, 210)  # words a minute
PITCHES = (30, 50, 70)  # of 0..99
TEST_EVERY = 5  # every fifth utterance of a digit by a voice is a test sample
_SILENCE = 100  # of 2^15; what is not louder before and behind a word is left out
_COMMAND = "espeak-ng"


def prepare_spoken_digits(
    data_dir: pathlib.Path,
    force: bool = False,
    voices: Sequence[str] = VOICES,
    speeds: Sequence[int] = SPEEDS,
    pitches: Sequence[int] = PITCHES,
) -> pathlib.Path:
    """Have every voice say every digit at every speed and pitch, and keep log-mel frames (`audio.py`).

    Args:
        data_dir: where the result goes.
        force: replace an existing result.
        voices: names of `espeak-ng`'s voices.
        speeds, pitches: of the utterances, at least `TEST_EVERY` pairs.

    Returns:
        The file `spoken_digits.npz`: `x_*` `[N, T, 40]` float32, NaN behind shorter ones, `y_*` digits, `writer_*`
        numbers of voices.

    Raises:
        UserError: espeak-ng or librosa is not installed, or a voice is not known.
    """
    out = new_file(data_dir / "spoken_digits.npz", force)
    command = shutil.which(_COMMAND)
    if command is None:
        raise UserError(f"--what=spoken_digits needs {_COMMAND} on PATH; run: apt-get install {_COMMAND}")
    librosa("--what=spoken_digits")
    frames: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "test": []}  # digit and voice of each utterance
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "said.wav"
        for (number, voice), (digit, word) in itertools.product(enumerate(voices), enumerate(DIGITS)):
            for count, (speed, pitch) in enumerate(itertools.product(speeds, pitches)):
                part = "test" if count % TEST_EVERY == TEST_EVERY - 1 else "train"
                frames[part].append(_frames([command, "-v", voice, "-s", f"{speed}", "-p", f"{pitch}"], word, file))
                rows[part].append((digit, number))
    steps = max(len(one) for said in frames.values() for one in said)
    arrays: dict[str, np.ndarray] = {}
    for part, said in frames.items():
        digits, speakers = np.array(rows[part]).T
        arrays |= {f"x_{part}": stacked(said, steps), f"y_{part}": digits, f"writer_{part}": speakers}
    return write_npz(out, arrays, len(DIGITS), FEATURES)


def _frames(command: Sequence[str], word: str, file: pathlib.Path) -> np.ndarray:
    """The frames `[T, 40]` of a word as a voice says it."""
    done = subprocess.run([*command, "-w", str(file), word], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"--what=spoken_digits: {' '.join(command[1:])} failed ({said[:200]})")
    try:
        with wave.open(str(file)) as read:
            if read.getsampwidth() != 2 or read.getnchannels() != 1:
                raise wave.Error("expected one channel of 16 bits")
            samples, rate = np.frombuffer(read.readframes(read.getnframes()), "<i2"), read.getframerate()
    except (OSError, EOFError, wave.Error) as e:
        raise UserError(f"--what=spoken_digits: {_COMMAND} wrote no WAV file ({e})") from e
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _SILENCE)
    if not len(loud):
        raise UserError(f"--what=spoken_digits: {' '.join(command[1:])} says nothing for {word!r}")
    return log_mel(f"--what=spoken_digits: {word!r}", samples[loud[0] : loud[-1] + 1], rate)
