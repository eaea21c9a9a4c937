"""Log-mel frames of waveforms, on the host once, with librosa (the extra `audio`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from prfl_jax.system.errors import UserError, first_line

RATE = 16_000  # samples a second; waveforms of another rate are resampled
BANDS = 40  # mel bands from 0 Hz to RATE / 2
FRAME, HOP = 400, 160  # samples of a frame and between the beginnings of two: 25 and 10 ms
FFT = 512  # a frame is filled up to so many with zeros
FLOOR = 1e-6  # added to the power before the logarithm; waveforms lie in -1 .. 1
_FULL_SCALE = 2**15  # of waveforms of whole numbers, which are 16-bit ones


def librosa(needed_for: str) -> Any:
    """The package of that name.

    Raises:
      UserError: it is not installed, or one that it needs is not.
    """
    try:
        import librosa as package

        return package
    except Exception as e:  # whatever a half-installed package raises
        said = first_line(e)
        raise UserError(f"{needed_for} needs librosa ({said}); run: pip install 'prfl_jax[audio]'") from e


def log_mel(where: str, wave: Any, rate: int) -> np.ndarray:
    """Logarithms of the power in each mel band, float32 `[T, BANDS]`.

    T = 1 + (n - 512) // 160 for a waveform of n samples at 16 kHz; a shorter one is filled up with zeros to one frame.

    Args:
      where: as an error's text begins: what it is needed for, `: `, and which waveform it is.
      wave: `[n]` or `[n, channels]`, whose mean is taken: floats in -1 .. 1, or whole numbers of 16 bits.
      rate: samples a second.

    Raises:
      UserError: no such array, or a value is not finite.
    """
    given = np.asarray(wave)
    if given.ndim not in (1, 2) or not given.size or not np.issubdtype(given.dtype, np.number):
        raise UserError(f"{where}: {given.dtype} {list(given.shape)}, expected a waveform [n] or [n, channels]")
    samples = given.astype(np.float32)
    if not np.isfinite(samples).all():
        raise UserError(f"{where}: it holds {samples[~np.isfinite(samples)][0]}, allowed are finite numbers")
    if np.issubdtype(given.dtype, np.integer):
        samples /= _FULL_SCALE
    samples = samples if samples.ndim == 1 else samples.mean(axis=1)
    package = librosa(where.partition(": ")[0])
    if rate != RATE:
        samples = package.resample(samples, orig_sr=rate, target_sr=RATE)
    samples = np.pad(samples, (0, max(FFT - len(samples), 0)))
    power = package.feature.melspectrogram(
        y=samples, sr=RATE, n_fft=FFT, win_length=FRAME, hop_length=HOP, center=False, n_mels=BANDS
    )
    return np.log(power.T + FLOOR).astype(np.float32)
