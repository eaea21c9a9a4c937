"""Log-mel frames against a slow NumPy version; the digits that espeak-ng says, by a stand-in and by itself."""

import shutil
import subprocess
import sys
import wave

import numpy as np
import pytest
from texts import config

from prfl_jax.data import audio, load, split, spoken_digits
from prfl_jax.data.audio import log_mel
from prfl_jax.system.errors import UserError

SLOW = pytest.mark.slow  # importing librosa takes seconds


@pytest.fixture
def librosa():
    return pytest.importorskip("librosa", reason="librosa is not installed (the extra audio)")


def hz_of(mel):
    """Slaney's scale: linear to 1 kHz, then a factor of 6.4 in 27 steps."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def slow_log_mel(samples):
    """Float64; a Hann window of 400 in the middle of 512 samples, triangles whose area is 1 over Hz."""
    frames = [samples[begin : begin + 512] for begin in range(0, len(samples) - 511, 160)]
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    k, n = np.arange(257), np.arange(512)
    power = np.abs((np.array(frames) * window) @ np.exp(-2j * np.pi * np.outer(n, k) / 512)) ** 2
    top = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    edges = hz_of(np.linspace(0, top, 42))
    bands = np.zeros((257, 40))
    for band in range(40):
        low, middle, high = edges[band : band + 3]
        for bin_ in range(257):
            f = bin_ * 16000 / 512
            bands[bin_, band] = max(0, min((f - low) / (middle - low), (high - f) / (high - middle))) * 2 / (high - low)
    return np.log(power @ bands + 1e-6)


def wave_of(seconds, rate, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 2000 * t) + 0.01 * rng.normal(size=len(t))


@SLOW
def test_frames_equal_a_slow_version(librosa):
    samples = wave_of(0.2, 16_000)
    found = log_mel("a: wave", samples, 16_000)
    assert found.dtype == np.float32 and found.shape == (1 + (3200 - 512) // 160, 40)
    np.testing.assert_allclose(found, slow_log_mel(samples), atol=2e-3)


@SLOW
def test_whole_numbers_channels_and_short_waveforms(librosa):
    own = np.rint(wave_of(0.1, 16_000) * 32768).astype(np.int16)
    wanted = slow_log_mel(own / 32768)
    for given in (own, own.astype(np.int64), own / 32768, own[:, None], np.stack([own, own], axis=1)):
        np.testing.assert_allclose(log_mel("a: wave", given, 16_000), wanted, atol=2e-3)
    short = log_mel("a: wave", own[:300], 16_000)
    np.testing.assert_allclose(short, slow_log_mel(np.pad(own[:300] / 32768, (0, 212))), atol=2e-3)
    assert log_mel("a: wave", np.zeros(600), 16_000).max() == pytest.approx(np.log(1e-6), abs=1e-5)


@SLOW
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_other_rates_are_resampled(librosa, rate):
    """A tone of 440 Hz is loudest in the band that it is in at 16 kHz."""
    tone = {r: 0.5 * np.sin(2 * np.pi * 440 * np.arange(r // 2) / r) for r in (16_000, rate)}
    wanted, found = (log_mel("a: wave", tone[r], r) for r in (16_000, rate))
    assert abs(len(found) - len(wanted)) <= 1
    assert (found[5:-5].argmax(axis=1) == wanted[5:-5].argmax(axis=1)[0]).all()
    np.testing.assert_allclose(found[5:40].max(axis=1), wanted[5:40].max(axis=1), atol=0.05)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(0), r"a: wave: float64 \[0\], expected a waveform \[n\] or \[n, channels\]"),
        (np.zeros((2, 2, 2)), r"float64 \[2, 2, 2\], expected a waveform"),
        (np.array(["x"]), r"<U1 \[1\], expected a waveform"),
        (np.array([0.1, np.nan]), "it holds nan, allowed are finite numbers"),
    ],
)
def test_no_waveforms_are_refused(samples, said):
    with pytest.raises(UserError, match=said) as e:
        log_mel("a: wave", samples, 16_000)
    assert "\n" not in str(e.value)


def test_without_librosa(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(UserError, match=r"data\.name=tfds:x needs librosa .*; run: pip install 'prfl_jax\[audio\]'"):
        log_mel("data.name=tfds:x: audio 0", np.zeros(600), 16_000)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/espeak-ng")
    with pytest.raises(UserError, match=r"--what=spoken_digits needs librosa") as e:
        spoken_digits.prepare_spoken_digits(tmp_path)
    assert "\n" not in str(e.value) and not list(tmp_path.iterdir())


# --- spoken digits ---


def stand_in(command, **kwargs):
    """A command espeak-ng whose words are tones: the faster, the longer; the longer a word, the longer."""
    voice, speed, pitch, file, word = (command[place] for place in (2, 4, 6, 8, 9))
    if voice == "nobody":
        return subprocess.CompletedProcess(command, 1, "", "Error: The specified espeak-ng voice does not exist.\n")
    silence, steps = np.zeros(2000), np.arange(20 * int(speed) + 300 * len(word))
    tone = np.sin(steps * (100 + int(pitch) + 10 * len(voice)) / 1000)
    samples = np.concatenate([silence, tone, silence]) * (0 if voice == "mute" else 9000)
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1 if voice == "coarse" else 2)
        out.setframerate(16_000)
        out.writeframes(samples.astype("<i2").tobytes())
    return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def speaker(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", stand_in)


@SLOW
def test_spoken_digits_by_a_stand_in(librosa, speaker, tmp_path):
    made = spoken_digits.prepare_spoken_digits(
        tmp_path, voices=("a", "bb"), speeds=(100, 200, 300, 150, 250), pitches=(9,)
    )
    data = load(config("spoken_digits", tmp_path), 0)
    assert made == tmp_path / "spoken_digits.npz" and data.num_classes == 10
    assert np.bincount(data.y_train).tolist() == [8] * 10 and np.bincount(data.y_test).tolist() == [2] * 10
    assert np.bincount(data.writer_train).tolist() == [40, 40] and np.bincount(data.writer_test).tolist() == [10, 10]
    lengths = (~np.isnan(data.x_train)).all(axis=2).sum(axis=1)
    wanted = [
        1 + (20 * speed + 300 * len(word) - 512) // 160
        for _ in ("a", "bb") for word in spoken_digits.DIGITS for speed in (100, 200, 300, 150)
    ]  # fmt: skip
    assert np.abs(lengths - wanted).max() <= 1 and data.x_train.shape == (80, lengths.max(), 40)
    with pytest.raises(UserError, match=r"spoken_digits\.npz is there already; --force replaces it"):
        spoken_digits.prepare_spoken_digits(tmp_path)
    cfg = config("spoken_digits", tmp_path, partition="writer", writers=2, holdout_fraction=0.0)
    shares = split(data, cfg, 2, 5, 0)
    assert [np.unique(data.writer_train[rows]).tolist() for rows in shares.clients] == [[0], [1]]


@SLOW
def test_what_espeak_ng_cannot_say(librosa, speaker, tmp_path, monkeypatch):
    for voice, said in (
        ("nobody", "-v nobody -s 110 -p 30 failed (Error: The specified"),
        ("mute", "says nothing for 'zero'"),
    ):
        with pytest.raises(UserError) as e:
            spoken_digits.prepare_spoken_digits(tmp_path / "data", voices=(voice,))
        assert said in str(e.value) and "\n" not in str(e.value) and not list((tmp_path / "data").iterdir())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="--what=spoken_digits needs espeak-ng on PATH; run: apt-get install espeak-ng"):
        spoken_digits.prepare_spoken_digits(tmp_path / "data")
    with pytest.raises(UserError, match=r"no file .*spoken_digits\.npz .*prepare_data.py --what=spoken_digits"):
        load(config("spoken_digits", tmp_path / "data"), 0)
    np.savez(
        tmp_path / "spoken_digits.npz",
        **{f"{n}_{p}": np.zeros((3, 8, 8), np.uint8) for n in "xy" for p in ("train", "test")},
    )
    with pytest.raises(UserError, match=r"x_train is uint8 \[3, 8, 8\], expected series as float32"):
        load(config("spoken_digits", tmp_path), 0)


@SLOW
def test_spoken_digits_by_espeak_ng(librosa, tmp_path):
    """Two voices; the nearest training sample by the mean frame of each tenth of a word tells most digits."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    spoken_digits.prepare_spoken_digits(
        tmp_path, voices=spoken_digits.VOICES[:2], speeds=spoken_digits.SPEEDS, pitches=(50,)
    )
    data = load(config("spoken_digits", tmp_path), 0)
    assert data.x_train.shape[0] == 80 and data.x_test.shape[0] == 20 and data.x_train.shape[2] == audio.BANDS

    def summary(x):
        rows = [one[~np.isnan(one).any(axis=1)] for one in x]
        return np.array([[part.mean(axis=0) for part in np.array_split(one, 10)] for one in rows]).reshape(len(x), -1)

    train, test = summary(data.x_train), summary(data.x_test)
    nearest = data.y_train[((test[:, None] - train[None]) ** 2).sum(axis=2).argmin(axis=1)]
    assert (nearest == data.y_test).mean() > 0.8
