"""Every fault the chaos runner knows, by name.

A fault is a generator: what comes before its `yield` goes wrong, what comes after it is put right again. It gets the
room and the one agent and the one coordinator it is aimed at; a fault of the room concerns everybody, and never happens
together with another. Those that take several coordinators are in `chaos_group_faults`.
Healing must work whatever the fault has led to: processes may be dead, restarted or stopped by then. Whoever is dead
after it is started again by the campaign.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cluster.chaos_room import FAULTY, GUEST, POISON, ChaosRoom, ended, gone, send
from cluster.chaos_scene import Course, Scene, fault
from cluster.faults import Direction, Wire
from cluster.group import Coordinator
from cluster.harness import DEMO, DEMO_FOLDER, until
from cluster.reference import AMONG
from cluster.witness import Manner

UP, DOWN = Direction


# --- processes


@fault("kill -9 agent", 1.0)
def _(scene: Scene) -> Course:
    gone(scene.process)
    yield


@fault("kill -9 runtime", 1.0)
def _(scene: Scene) -> Course:
    scene.room.signal_runtimes(scene.agent, signal.SIGKILL)
    yield


@fault("kill -9 coordinator", 1.0, of_the_room=True)
def _(scene: Scene) -> Course:
    gone(scene.keeper.process)
    yield


@fault("kill -9 all", 1.0, of_the_room=True)
def _(scene: Scene) -> Course:
    for process in scene.room.everybody():
        gone(process)
    yield


@fault("kill -9 all agents", 1.0, of_the_room=True)
def _(scene: Scene) -> Course:
    for process in scene.room.agents.values():
        gone(process)
    yield


@fault("restart agent", 0.5)
def _(scene: Scene) -> Course:
    ended(scene.process)
    yield


@fault("restart coordinator", 0.5, of_the_room=True)
def _(scene: Scene) -> Course:
    scene.end(scene.keeper)
    yield


@fault("rolling restart of agents", 0.5, of_the_room=True)
def _(scene: Scene) -> Course:
    for process in scene.room.agents.values():
        ended(process)
        process.start()
    yield


@fault("crash loop of a runtime", 0.5)
def _(scene: Scene) -> Course:
    # Killed as soon as it is there, a few times over; the agent backs off in between.
    enough = threading.Event()

    def crash() -> None:
        while not enough.wait(0.2):
            scene.room.signal_runtimes(scene.agent, signal.SIGKILL)

    crashing = threading.Thread(target=crash)
    crashing.start()
    enough.wait(4)
    enough.set()
    crashing.join()
    yield


def _stopping(name: str, hold_s: float, pids: Callable[[Scene], list[int]], of_the_room: bool = False) -> None:
    @fault(f"SIGSTOP {name} {hold_s:g} s", hold_s, of_the_room)
    def _(scene: Scene) -> Course:
        stopped = pids(scene)
        for pid in stopped:
            send(pid, signal.SIGSTOP)
        yield
        for pid in stopped:
            send(pid, signal.SIGCONT)


for _seconds in (1.0, 5.0):
    _stopping("agent", _seconds, lambda scene: [scene.process.pid])
    _stopping("runtime", _seconds, lambda scene: scene.room.runtimes_of(scene.agent))
    _stopping("coordinator", _seconds, lambda scene: [scene.keeper.process.pid], of_the_room=True)
# Longer than the silence after which a runtime is taken for hung.
_stopping("runtime", 20.0, lambda scene: scene.room.runtimes_of(scene.agent))
_stopping("agent", 20.0, lambda scene: [scene.process.pid])


@fault("CPU hog", 5.0, of_the_room=True)
def _(_: Scene) -> Course:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


@fault("a guest joins and leaves", 5.0, of_the_room=True)
def _(scene: Scene) -> Course:
    guest = scene.room.add(GUEST)
    yield
    del scene.room.agents[GUEST]
    ended(guest)


# --- what operators do


def administer(scene: Scene, keeper: Coordinator, method: str, path: str) -> httpx.Response | None:
    """As whoever can read the coordinator's folder; nothing where it is not there."""
    with contextlib.suppress(httpx.TransportError, OSError):
        key = (scene.room.home(keeper) / "coordinator" / "admin-key").read_text().strip()
        headers = {"authorization": f"Bearer {key}"}
        return httpx.request(method, f"{keeper.url}/api/v1/admin/{path}", headers=headers, timeout=15)
    return None


def drain(scene: Scene, node: str, draining: bool) -> bool:
    """By whichever coordinator takes it; at the end of a fault there may be none for a while."""
    path = f"nodes/{node}/{'drain' if draining else 'undrain'}"
    told = (administer(scene, keeper, "POST", path) for keeper in scene.room.members)
    return any(answer is not None and answer.status_code == 200 for answer in told)


def _drained(scene: Scene, agents: Iterable[str]) -> Course:
    """Those that are there; a name may have been another node's before."""
    wanted, nodes = set(agents), list[str]()
    scene.saw("nodes are known", lambda: wanted <= set(scene.room.numbers().values()))
    for number, name in scene.room.numbers().items():
        node = f"agent-{number}"
        if name in wanted and scene.saw(f"{node} is drained", partial(drain, scene, node, draining=True)):
            nodes.append(node)
    yield
    for node in nodes:
        until(f"{node} takes work again", partial(drain, scene, node, draining=False))


@fault("an agent drained", 4.0)
def _(scene: Scene) -> Course:
    yield from _drained(scene, [scene.agent])


@fault("all agents but one drained", 4.0, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    yield from _drained(scene, set(scene.room.agents) - {scene.agent})


@fault("an agent updated", 4.0, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    # As operators do it: emptied, stopped, started. Nobody's request may notice.
    drained = _drained(scene, [scene.agent])
    next(drained)
    yield
    ended(scene.process)
    scene.process.start()
    yield from drained


# --- the network


def silence(room: ChaosRoom, agent: str) -> None:
    for link in room.links(agent):
        link.set(blocked=True)


def heal(room: ChaosRoom, agent: str) -> None:
    for link in room.links(agent):
        link.heal()


def _wires(
    name: str, hold_s: float = 4.0, direction: Direction | None = None, wire: Wire | None = None, **faults: float
) -> None:
    @fault(name, hold_s)
    def _(scene: Scene) -> Course:
        for link in scene.room.links(scene.agent):
            link.set(direction, wire, **faults)
        yield
        heal(scene.room, scene.agent)


_wires("partition", 8.0, blocked=True)
_wires("short partition", 1.0, blocked=True)
_wires("one-way partition towards the coordinator", 8.0, UP, blocked=True)
_wires("one-way partition from the coordinator", 8.0, DOWN, blocked=True)
_wires("control cut while tokens flow", 8.0, wire=Wire.TCP, blocked=True)
_wires("tokens cut while control flows", 8.0, wire=Wire.UDP, blocked=True)
_wires("half-open", 8.0, swallow=True)
_wires("loss 1 %", loss=0.01)
_wires("loss 10 %", loss=0.1)
_wires("loss 30 %", loss=0.3)
_wires("delay 50 ms", delay_s=0.05, jitter_s=0.02)
_wires("delay 300 ms", delay_s=0.3, jitter_s=0.1)
_wires("delay 2000 ms", 8.0, delay_s=2.0, jitter_s=0.5)
_wires("1 Mbit/s", bits_per_s=1e6)
_wires("truncation", cut_after=3_000, shorten=0.1)
_wires("resets after some bytes", reset_after=3_000)
_wires("bit flips", flip=0.05)
_wires("duplicates", duplicate=0.3)
_wires("reordering", reorder=0.2)
_wires("everything at once", loss=0.05, delay_s=0.05, jitter_s=0.05, reorder=0.05, duplicate=0.05, flip=0.01)


@fault("resets", 3.0)
def _(scene: Scene) -> Course:
    for link in scene.room.links(scene.agent):
        link.reset()
    yield


@fault("partial partition", 8.0, of_the_room=True)
def _(scene: Scene) -> Course:
    half = list(scene.room.agents)[::2]
    for agent in half:
        silence(scene.room, agent)
    yield
    for agent in half:
        heal(scene.room, agent)


@fault("all agents partitioned", 7.0, of_the_room=True)
def _(scene: Scene) -> Course:
    for agent in scene.room.agents:
        silence(scene.room, agent)
    yield
    for agent in scene.room.agents:
        heal(scene.room, agent)


@fault("whole host gone", 6.0)
def _(scene: Scene) -> Course:
    # Nobody says goodbye: first the cable, then the programs.
    silence(scene.room, scene.agent)
    gone(scene.process)
    yield
    heal(scene.room, scene.agent)


def _clients(manner: Manner, hold_s: float) -> None:
    @fault(str(manner), hold_s)
    def _(scene: Scene) -> Course:
        scene.witness.manners[manner] = 0.5
        yield
        del scene.witness.manners[manner]


_clients(Manner.SLOW, 4.0)
_clients(Manner.HANG_UP, 4.0)

# --- storage


@fault("full disk", 4.0, of_the_room=True)
def _(scene: Scene) -> Course:
    yield from full(scene, scene.keeper)


def full(scene: Scene, keeper: Coordinator) -> Course:
    """No byte is left on its disk, and there is something to be written down: a new node, and blame for deaths."""
    ballast = scene.room.home(keeper) / "filling"
    if not scene.room.has_own_disk(keeper):
        scene.missed.append("it has no disk of its own, which takes root")
    else:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
    shutil.rmtree(scene.room.folder / scene.agent, ignore_errors=True)
    gone(scene.process)
    scene.process.start()
    for agent in scene.room.agents:
        scene.room.signal_runtimes(agent, signal.SIGKILL)
    yield
    ballast.unlink(missing_ok=True)


@fault("data folder of an agent deleted", 1.0)
def _(scene: Scene) -> Course:
    gone(scene.process)
    shutil.rmtree(scene.room.folder / scene.agent)
    yield


@fault("data folder of a running agent deleted", 3.0, ends=True)
def _(scene: Scene) -> Course:
    shutil.rmtree(scene.room.folder / scene.agent, ignore_errors=True)
    yield
    gone(scene.process)


def _damaged(name: str, pattern: str, spoil: Callable[[bytes], bytes]) -> None:
    """The coordinator finds a damaged file at its start. It may refuse, never serve lies; then a backup returns."""

    @fault(name, 2.0, of_the_room=True, ends=True)
    def _(scene: Scene) -> Course:
        before = scene.keeper.status()
        keeper, registry = scene.keeper.process, scene.room.home(scene.keeper) / "coordinator" / "registry"
        gone(keeper)
        backup = scene.room.folder / "registry-backup"
        shutil.rmtree(backup, ignore_errors=True)
        shutil.copytree(registry, backup)
        for path in registry.glob(pattern):
            path.write_bytes(spoil(path.read_bytes()))
        keeper.start()
        yield
        # On a busy machine it has not even looked yet.
        until(f"{keeper.name} refuses or serves", lambda: not keeper.alive() or scene.keeper.status() is not None)
        if not keeper.alive():
            shutil.rmtree(registry)
            shutil.copytree(backup, registry)
        elif before:
            until(f"{keeper.name} serves what it served before", lambda: _knows(scene.keeper, before))


def _knows(keeper: Coordinator, before: dict[str, Any]) -> bool:
    now = keeper.status()
    if not now:
        return not keeper.process.alive()  # it has looked again, and refuses
    nodes, former = ({node["node"] for node in status["nodes"]} for status in (now, before))
    reached = now["coordinator"]["applied_index"] >= before["coordinator"]["applied_index"]
    return now["cluster"] == before["cluster"] and reached and nodes >= former


def _turned(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


_damaged("bit flip in the log", "log-*", _turned)
_damaged("bit flip in the vote", "vote", _turned)
_damaged("torn tail", "log-*", lambda data: data + b"\x17\x00\x00\x00 half a rec")


@fault("damaged model file", 3.0)
def _(scene: Scene) -> Course:
    held = list((scene.room.folder / scene.agent / "agent" / "models").glob("*/*/config.json"))
    for path in held:
        path.write_text('{"model_type": "nonsense"}')
    scene.room.signal_runtimes(scene.agent, signal.SIGKILL)
    yield
    for path in held:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(DEMO_FOLDER / "config.json", path)
    gone(scene.process)


# --- resources


def _descriptors(name: str, pid: Callable[[Scene], int], of_the_room: bool) -> None:
    @fault(name, 4.0, of_the_room, ends=True)
    def _(scene: Scene) -> Course:
        victim = pid(scene)
        try:
            before = resource.prlimit(victim, resource.RLIMIT_NOFILE)
            held = len(list(Path(f"/proc/{victim}/fd").iterdir()))
            resource.prlimit(victim, resource.RLIMIT_NOFILE, (held, before[1]))
        except OSError:  # it has just died
            yield
            return
        yield
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(victim, resource.RLIMIT_NOFILE, before)


_descriptors("agent out of descriptors", lambda scene: scene.process.pid, of_the_room=False)
_descriptors("coordinator out of descriptors", lambda scene: scene.keeper.process.pid, of_the_room=True)


@fault("runtime out of memory", 3.0)
def _(scene: Scene) -> Course:
    for pid in scene.room.runtimes_of(scene.agent):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    yield
    scene.room.signal_runtimes(scene.agent, signal.SIGKILL)


# --- runtimes


def _knob(name: str, knobs: str, hold_s: float = 5.0, lies: bool = False) -> None:
    """A runtime that starts with other knobs, until they have come about; afterwards one with the ordinary ones."""

    @fault(name, hold_s, lies=lies)
    def _(scene: Scene) -> Course:
        room, agent = scene.room, scene.agent
        room.struck(agent).unlink(missing_ok=True)
        room.turn(agent, knobs)
        former = room.runtimes_of(agent)
        room.signal_runtimes(agent, signal.SIGKILL)
        if "_after" in knobs:
            scene.saw("it strikes", room.struck(agent).exists)
        else:
            scene.saw("a runtime starts with it", lambda: bool(set(room.runtimes_of(agent)) - set(former)))
        yield
        scene.room.turn(scene.agent)
        scene.room.signal_runtimes(scene.agent, signal.SIGKILL)


_knob("runtime 10x slower", "slow=10", 6.0)
_knob("runtime hangs", "hang_after=40", 20.0)
_knob("runtime sends garbage", "garbage_after=40")
_knob("runtime cuts a frame", "truncate_after=40")
_knob("runtime exits", "exit_after=40,exit_status=0")
_knob("runtime counts wrongly", "wrong_count=1", lies=True)
_knob("runtime sends wrong tokens", "lie_after=40", lies=True)
_knob("long load", "load_s=8", 6.0)


def _prompted(name: str, token: int) -> None:
    @fault(name, 3.0, of_the_room=True)
    def _(scene: Scene) -> Course:
        # A prompt of its own each time: what is quarantined already harms nobody.
        body = {"model": DEMO, "prompt": [token, *scene.dice.choices(AMONG, k=8)], "max_tokens": 4, "temperature": 0}
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{scene.keeper.url}/v1/completions", json=body, timeout=60)
        yield


_prompted("poison", POISON)
_prompted("model call raises", FAULTY)
