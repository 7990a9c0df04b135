"""A machine that sleeps: its processes stand still, and the clock that they measure by stands still with them.

SIGSTOP alone is no sleep, because all clocks go on. The product tells a sleep by two clocks, of which one goes on
(`proto/src/suspend.rs`); a small library that is loaded before libc holds the other back by as much as a file says.
Linux only, and needs a C compiler.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

_LIBRARY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *asleep_ns;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ASLEEP");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *place = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (place != MAP_FAILED) asleep_ns = place;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (syscall(SYS_clock_gettime, clock, now) != 0) return -1;
    if (clock == CLOCK_MONOTONIC && asleep_ns) {
        int64_t ns = now->tv_sec * INT64_C(1000000000) + now->tv_nsec - *asleep_ns;
        now->tv_sec = ns / INT64_C(1000000000);
        now->tv_nsec = ns % INT64_C(1000000000);
    }
    return 0;
}
"""


class Sleeper:
    """What a process needs from its start on to be put to sleep later, with all that it starts."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("a sleep is played on Linux, with a C compiler")
        source, library = folder / "asleep.c", folder / "asleep.so"
        source.write_text(_LIBRARY)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file = folder / "asleep"
        self._slept_ns = 0
        self._write()
        self.environment = {"LD_PRELOAD": str(library), "ASLEEP": str(self._file)}

    def sleep(self, pid: int, seconds: float) -> None:
        """The whole machine, as far as these processes go."""
        pids = [pid, *_below(pid)]
        for one in pids:
            os.kill(one, signal.SIGSTOP)
        begin = time.monotonic_ns()
        time.sleep(seconds)
        self._slept_ns += time.monotonic_ns() - begin
        self._write()
        for one in pids:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)

    def _write(self) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", self._slept_ns))


def _below(pid: int) -> list[int]:
    """Children, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            number, _, rest = stat.read_text().partition(" (")
            parents[int(number)] = int(rest.rpartition(") ")[2].split()[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return [one for child in children for one in (child, *_below(child))]
