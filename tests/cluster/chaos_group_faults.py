"""What can go wrong with several coordinators, by name: in the table of `chaos_faults`, drawn in a group only.

All of them are of the room: the group stands one at a time, as it promises; two of its members at once are a fault of
their own. `harmed` names the coordinators that live and are stopped or cut off, so that their own streams may break.
"""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cluster.chaos_faults import administer, full
from cluster.chaos_room import gone, send
from cluster.chaos_scene import FAULTS, SEEN_S, Course, Scene, fault
from cluster.faults import Wire
from cluster.group import Coordinator
from cluster.harness import until

_OF_ONE = frozenset(FAULTS)
_FLAP_S = 0.7


def _leader(scene: Scene) -> Coordinator:
    return scene.room.leader()


def _follower(scene: Scene) -> Coordinator:
    leader = scene.room.leader()
    return scene.dice.choice([member for member in scene.room.members if member is not leader])


_Who = Callable[[Scene], Coordinator]

# --- processes


def _killed(name: str, who: _Who) -> None:
    @fault(f"kill -9 {name}", 3.0, of_the_room=True)
    def _(scene: Scene) -> Course:
        gone(who(scene).process)
        yield

    @fault(f"restart {name}", 0.5, of_the_room=True)
    def _(scene: Scene) -> Course:
        scene.end(who(scene))
        yield


_killed("leader", _leader)
_killed("follower", _follower)


@fault("kill -9 two coordinators", 6.0, of_the_room=True)
def _(scene: Scene) -> Course:
    # Whoever is left has no majority: its running streams go on, new work waits or is refused.
    for member in scene.dice.sample(scene.room.members, 2):
        gone(member.process)
    yield


@fault("kill -9 all coordinators", 1.0, of_the_room=True)
def _(scene: Scene) -> Course:
    for member in scene.room.members:
        gone(member.process)
    yield


@fault("rolling restart of coordinators", 0.5, of_the_room=True)
def _(scene: Scene) -> Course:
    for member in scene.room.members:
        scene.end(member)
        member.process.start()
        until(f"{member.name} is back", member.knows_who_leads)
    yield


@fault("crash loop of the leader", 0.5, of_the_room=True)
def _(scene: Scene) -> Course:
    # Whoever leads next is killed as well, while the one before starts.
    for _ in range(3):
        leader = scene.room.leader()
        gone(leader.process)
        scene.room.leader()
        leader.process.start()
    yield


def _stopped(name: str, hold_s: float, who: _Who) -> None:
    @fault(f"SIGSTOP {name} {hold_s:g} s", max(hold_s, SEEN_S), of_the_room=True, flows=True)
    def _(scene: Scene) -> Course:
        stopped = who(scene)
        scene.harmed.add(stopped.name)
        pid = stopped.process.pid
        send(pid, signal.SIGSTOP)
        threading.Event().wait(hold_s)
        send(pid, signal.SIGCONT)
        yield


for _seconds in (1.0, 5.0):
    _stopped("leader", _seconds, _leader)
_stopped("follower", 5.0, _follower)

# --- the network between coordinators


@dataclass(frozen=True, slots=True)
class _Ways:
    """Which of the ways between a coordinator and the others are silent; agents and clients still reach it."""

    heard: bool
    hears: bool


def _cut_off(name: str, who: _Who, ways: _Ways, hold_s: float = 8.0) -> None:
    @fault(name, max(hold_s, SEEN_S), of_the_room=True, flows=True)
    def _(scene: Scene) -> Course:
        member, wiring = who(scene), scene.room.ways
        scene.harmed.add(member.name)
        for other in scene.room.but(member):
            if not ways.heard:
                wiring.send(member.name, other, blocked=True)
            if not ways.hears:
                wiring.send(other, member.name, blocked=True)
        if hold_s < SEEN_S:
            threading.Event().wait(hold_s)
            wiring.heal(member.name, scene.room.but(member))
        yield
        wiring.heal(member.name, scene.room.but(member))


_cut_off("leader cut off from the others", _leader, _Ways(heard=False, hears=False))
_cut_off("leader unheard by the others", _leader, _Ways(heard=False, hears=True))
_cut_off("leader deaf to the others", _leader, _Ways(heard=True, hears=False))
_cut_off("leader cut off for a moment", _leader, _Ways(heard=False, hears=False), 1.0)
_cut_off("follower cut off from the others", _follower, _Ways(heard=False, hears=False))
_cut_off("follower unheard by the others", _follower, _Ways(heard=False, hears=True))
_cut_off("follower deaf to the others", _follower, _Ways(heard=True, hears=False))


@fault("leader and one follower cut off from each other", 8.0, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    # The third one hears both.
    leader, follower = _leader(scene), _follower(scene)
    scene.harmed.update({leader.name, follower.name})
    scene.room.ways.set(leader.name, follower.name, blocked=True)
    yield
    scene.room.ways.set(leader.name, follower.name)


@fault("all coordinators cut off from one another", 6.0, of_the_room=True)
def _(scene: Scene) -> Course:
    scene.harmed.update(member.name for member in scene.room.members)
    for member in scene.room.members:
        scene.room.ways.partition(member.name, scene.room.but(member))
    yield
    for member in scene.room.members:
        scene.room.ways.heal(member.name, scene.room.but(member))


def _between(name: str, hold_s: float = 5.0, *, flows: bool = False, **faults: float) -> None:
    """On all wires between coordinators, both ways. Nobody is cut off: no stream has a reason to break."""

    @fault(f"{name} between coordinators", hold_s, of_the_room=True, flows=flows)
    def _(scene: Scene) -> Course:
        pairs = list(itertools.combinations([member.name for member in scene.room.members], 2))
        for pair in pairs:
            scene.room.ways.set(*pair, **faults)
        yield
        for pair in pairs:
            scene.room.ways.set(*pair)


_between("delay 20 ms", 6.0, flows=True, delay_s=0.02, jitter_s=0.01)
_between("delay 50 ms", 6.0, flows=True, delay_s=0.05, jitter_s=0.02)
# Slower than 100 ms each way nothing new is agreed upon, as the README says; what was agreed upon holds.
_between("delay 300 ms", 6.0, delay_s=0.3, jitter_s=0.1)
_between("delay 2000 ms", 8.0, delay_s=2.0, jitter_s=0.5)
_between("loss 10 %", 6.0, flows=True, loss=0.1)
_between("loss 30 %", loss=0.3)
_between("1 Mbit/s", 6.0, flows=True, bits_per_s=1e6)
_between("half-open", 8.0, swallow=True)
_between("resets after some bytes", reset_after=3_000)
_between("truncation", cut_after=3_000)
_between("bit flips", flip=0.05)


@fault("flapping wires between coordinators", 0.5, of_the_room=True)
def _(scene: Scene) -> Course:
    # Now this pair, now that one is silent, each for less than an election takes.
    enough = threading.Event()
    for _ in range(4):
        for pair in itertools.combinations([member.name for member in scene.room.members], 2):
            scene.room.ways.set(*pair, blocked=True)
            enough.wait(_FLAP_S)
            scene.room.ways.set(*pair)
    yield


# --- the network between one agent and one coordinator


def _one_way(name: str, up: bool = True, down: bool = True, wire: Wire | None = None, leads: bool = False) -> None:
    @fault(name, 8.0, of_the_room=True, flows=True)
    def _(scene: Scene) -> Course:
        keeper = scene.room.leader() if leads else scene.keeper
        wiring = scene.room.ways
        if up:
            wiring.send(scene.agent, keeper.name, wire, blocked=True)
        if down:
            wiring.send(keeper.name, scene.agent, wire, blocked=True)
        yield
        wiring.set(scene.agent, keeper.name)


_one_way("one agent cut off from one coordinator")
_one_way("one agent cut off from the leader", leads=True)
_one_way("one agent unheard by one coordinator", down=False)
_one_way("one agent deaf to one coordinator", up=False)
_one_way("tokens cut between one agent and one coordinator", wire=Wire.UDP)
_one_way("control cut between one agent and one coordinator", wire=Wire.TCP)
_one_way("tokens cut between one agent and the leader", wire=Wire.UDP, leads=True)
_one_way("control cut between one agent and the leader", wire=Wire.TCP, leads=True)


@fault("leader cut off from all agents", 14.0, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    leader = _leader(scene)
    scene.harmed.add(leader.name)
    scene.room.ways.partition(leader.name, scene.room.agents)
    yield
    scene.room.ways.heal(leader.name, scene.room.agents)


@fault("host of the leader gone", 6.0, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    # Nobody says goodbye: first the cables, then the program.
    leader = _leader(scene)
    everybody = [*scene.room.but(leader), *scene.room.agents]
    scene.room.ways.partition(leader.name, everybody)
    gone(leader.process)
    yield
    scene.room.ways.heal(leader.name, everybody)


# --- what operators do


@fault("the lead handed over", SEEN_S, of_the_room=True, flows=True)
def _(scene: Scene) -> Course:
    def handed_over() -> bool:
        leader = _leader(scene)
        listed = administer(scene, leader, "GET", "coordinators")
        members = listed.json().get("coordinators", []) if listed else []
        followers = [member["replica"] for member in members if member["role"] == "voter" and not member["leader"]]
        if not followers:
            return False
        moved = administer(scene, leader, "POST", f"coordinators/{scene.dice.choice(followers)}/lead")
        return moved is not None and moved.status_code == 200

    scene.saw("the lead is handed over", handed_over)
    yield


# --- storage


@fault("full disk of the leader", 5.0, of_the_room=True)
def _(scene: Scene) -> Course:
    yield from full(scene, _leader(scene))


OF_A_GROUP = frozenset(FAULTS) - _OF_ONE
