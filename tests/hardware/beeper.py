"""Plays a beep every BEAT seconds into an ALSA device, and prints when the first sample was due there, on CLOCK_MONOTONIC.

By libasound itself, and with the buffer filled before it starts, so that sample N is heard N / RATE after that time. It
ends with an error when it could not keep up, which would make what it printed untrue.
"""
import array
import ctypes
import math
import sys
import time

RATE, BEAT, LENGTH, TONE = 48_000, 1.5, 0.1, 1000
PERIOD = RATE // 10
PLAYBACK, S16_LE, INTERLEAVED = 0, 2, 3

alsa = ctypes.CDLL("libasound.so.2")
alsa.snd_pcm_writei.restype = ctypes.c_long
alsa.snd_pcm_writei.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ulong]
alsa.snd_strerror.restype = ctypes.c_char_p


def check(result):
    if result < 0:
        sys.exit(f"beeper: {alsa.snd_strerror(ctypes.c_int(result)).decode()}")
    return result


def beat():
    """The samples of one beat in stereo: a beep, then silence."""
    samples = array.array("h")
    for n in range(int(RATE * BEAT)):
        value = round(20_000 * math.sin(2 * math.pi * TONE * n / RATE)) if n < RATE * LENGTH else 0
        samples.extend((value, value))
    return samples.tobytes()


pcm = ctypes.c_void_p()
check(alsa.snd_pcm_open(ctypes.byref(pcm), sys.argv[1].encode(), PLAYBACK, 0))
check(alsa.snd_pcm_set_params(pcm, S16_LE, INTERLEAVED, 2, RATE, 0, 1_000_000))
samples = beat()
beats = (samples[i:i + PERIOD * 4] for _ in iter(int, 1) for i in range(0, len(samples), PERIOD * 4))
# alsa-lib starts a device when its buffer is full; before that, the last write still fits.
for _ in range(5):
    check(alsa.snd_pcm_writei(pcm, next(beats), PERIOD))
before = time.monotonic()
check(alsa.snd_pcm_start(pcm))
print(f"began at {(before + time.monotonic()) / 2:.6f}", flush=True)
for piece in beats:
    check(alsa.snd_pcm_writei(pcm, piece, PERIOD))
