"""What rows of unlike lengths hold and cost, with a room for their KV caches and without one.

    PYTHONPATH=python:python/tests PYTHON benches/kv_groups.py

Owns the two rooms and their rounds: one that holds just what is reserved, which parts a long row from short ones, and
one with space to spare, which must cost nothing. Both sides of a ratio are measured in turns, in one process. The model
is tiny and runs wherever MLX does, so that a step is mostly overhead: bytes carry over to other models, times do not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import mlx.core as mx

from mlx_runtime.backend import Start
from mlx_runtime.batch import Chunk
from mlx_runtime.engine import MlxBackend
from mlx_runtime.protocol import Generate, Load, Sampling
from tiny_models import Recipe, make

SHORT = (200, 210, 220, 230, 240, 250, 260)
CHUNK = 512
STEPS = 64
# Decoding begins with these: caches are being regrouped, and nothing is looked ahead yet.
WARM_UP = 4

# The KV bytes held at the end, and the median seconds of a step.
Run = tuple[int, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benches/kv_groups", description=__doc__.splitlines()[0])
    parser.add_argument("--long", type=int, default=6000, help="tokens of the long row")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lengths = (options.long, *SHORT)
    rooms = {
        "what is reserved": sum(lengths) + 2 * STEPS * len(lengths),
        "space to spare": 2 * options.long * len(lengths),
    }
    backend = MlxBackend()
    backend.prepare()
    print(f"one row of {options.long} tokens beside seven of {SHORT[0]} to {SHORT[-1]}")
    with tempfile.TemporaryDirectory() as folder:
        model = make(Path(folder) / "tiny", Recipe(ctx=options.long + 1024))
        for name, room in rooms.items():
            without, within = list[Run](), list[Run]()
            for _ in range(options.rounds):
                without.append(play(backend, model, lengths, None))
                within.append(play(backend, model, lengths, room))
            print(f"{name}:")
            tell("no room", without)
            tell("in a room", within)
            held, times = zip(*((a[0] / b[0], a[1] / b[1]) for a, b in zip(without, within, strict=True)), strict=True)
            print(f"  no room / in a room: bytes {statistics.median(held):.2f} x, ", end="")
            print(f"step {statistics.median(times):.2f} x ({min(times):.2f} to {max(times):.2f})", flush=True)


def play(backend: MlxBackend, model: Path, lengths: tuple[int, ...], room: int | None) -> Run:
    """All rows to the end of their prompts, then so many steps."""
    backend.load(Load(1, str(model), CHUNK, len(lengths), kv_tokens=room), lambda _fraction: None)
    mx.clear_cache()
    before = backend.memory().active_bytes
    for row, length in enumerate(lengths):
        backend.start([Start(Generate(row, tuple(1 + n % 400 for n in range(length)), 999, Sampling(temperature=0.0)))])
        for start in range(0, length - 1, CHUNK):
            backend.prefill([Chunk(row, start, min(CHUNK, length - 1 - start))])
        backend.promote([row])
    seconds: list[float] = []
    for step in range(WARM_UP + STEPS):
        began = time.perf_counter()
        backend.decode()
        if step >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    mx.synchronize()
    held = backend.memory().active_bytes - before
    backend.unload()
    return held, statistics.median(seconds)


def tell(name: str, runs: list[Run]) -> None:
    """One side, for people."""
    held, seconds = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"  {name:<10} {held / 1e6:6.1f} MB held, {seconds * 1e3:6.2f} ms a step")


if __name__ == "__main__":
    main()
