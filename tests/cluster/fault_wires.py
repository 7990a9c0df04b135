"""The two wires of a link: a TCP listener and a UDP socket that pass on what the faults of the moment leave of it.

Owns sockets, order and buffers, all of them bounded: a full TCP lane stops reading, a full UDP lane drops, as a router
does. Refuses to decide anything by itself: what happens to a packet is said in `faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.faults import Blocks, Dice, Direction, Faults, Wire, fate

Address = tuple[str, int]

_READ_BYTES = 16 << 10
# Pieces of at most a block: a megabyte of a connection may be on its way in each direction.
_LANE_PIECES = 1_024
# Two seconds of one megabit, and far more than anything that is not slowed down ever holds.
_LANE_BYTES = 256 << 10
# Agents have one or two sockets; the oldest flow goes when a port was reused too often.
_FLOWS = 64
# Half-open connections pile up while clients dial again; the oldest is reset.
_CONNECTIONS = 256
_TICK_S = 1e-4
# A burst must not be lost before anybody decided so.
_SOCKET_BYTES = 4 << 20


@dataclass
class Lane:
    """One direction of one wire: its faults, its counts, whether the way is free."""

    faults: Faults = field(default_factory=Faults)
    counts: Counter[str] = field(default_factory=Counter[str])
    free: asyncio.Event = field(default_factory=asyncio.Event)
    _idle_at: float = 0.0

    def __post_init__(self) -> None:
        self.free.set()

    def set(self, faults: Faults) -> None:
        self.faults = faults
        (self.free.clear if faults.blocked else self.free.set)()

    def through_at(self, size: int, now: float) -> float:
        """When the last of so many bytes has left: all flows share the rate."""
        taken_s = size * 8 / self.faults.bits_per_s if self.faults.bits_per_s else 0.0
        self._idle_at = max(self._idle_at, now) + taken_s
        return self._idle_at


Lanes = dict[Direction, Lane]


class TcpWire:
    """Accepts connections and leads each to the target."""

    def __init__(self, name: str, seed: int, target: Address) -> None:
        self.lanes: Lanes = {direction: Lane() for direction in Direction}
        self._name, self._seed, self._target = name, seed, target
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._server: asyncio.Server | None = None

    async def open(self, listen: Address) -> Address:
        """Listens; tells where."""
        self._server = await asyncio.start_server(self._serve, *listen)
        address: Address = self._server.sockets[0].getsockname()
        return address

    def set(self, direction: Direction, faults: Faults) -> None:
        """Switches the faults of a direction. What has lost bytes cannot go on when swallowing ends."""
        self.lanes[direction].set(faults)
        if not faults.swallow:
            for connection in [one for one in self._connections.values() if direction in one.robbed]:
                connection.reset()

    def reset(self) -> int:
        """RST to both ends of every connection; tells how many there were."""
        held = list(self._connections.values())
        for connection in held:
            connection.reset()
        return len(held)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._accepted
        self._accepted += 1
        flow = f"{self._name}/{Wire.TCP}/{number}"
        connection = Connection(self.lanes, {way: Dice(self._seed, f"{flow}/{way}") for way in Direction})
        connection.writers.append(writer)
        if len(self._connections) >= _CONNECTIONS:
            next(iter(self._connections.values())).reset()
        self._connections[number] = connection
        try:
            await connection.run(reader, writer, self._target)
        finally:
            del self._connections[number]


class Connection:
    """One client's connection and its counterpart at the target."""

    def __init__(self, lanes: Lanes, dice: dict[Direction, Dice]) -> None:
        self.lanes, self.dice = lanes, dice
        self.writers: list[asyncio.StreamWriter] = []
        self.robbed: set[Direction] = set()
        self._over = asyncio.Event()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address) -> None:
        """Until both directions have ended or one broke."""
        pumps = asyncio.create_task(self._pump_both(reader, writer, target))
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait([pumps, over], return_when=asyncio.FIRST_COMPLETED)
            if pumps.done() and pumps.exception() is not None:
                self.reset()
        finally:
            for task in (pumps, over):
                task.cancel()
            # What fails while it is over is nobody's news.
            pumps.add_done_callback(lambda done: done.cancelled() or done.exception())
            for one in self.writers:
                one.close()

    def reset(self) -> None:
        """RST to both ends."""
        for writer in self.writers:
            handle: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._over.set()

    async def _pump_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address) -> None:
        await self.lanes[Direction.UP].free.wait()
        behind, beyond = await asyncio.open_connection(*target)
        self.writers.append(beyond)
        ways = [(Direction.UP, reader, beyond), (Direction.DOWN, behind, writer)]
        async with asyncio.TaskGroup() as group:
            for way, source, sink in ways:
                waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_LANE_PIECES)
                group.create_task(self._take(way, source, waiting))
                group.create_task(self._give(way, sink, waiting))

    async def _take(
        self, way: Direction, source: asyncio.StreamReader, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Reads, lets the faults work, and queues what is left with the time at which it may leave."""
        lane, clock = self.lanes[way], asyncio.get_running_loop().time
        blocks, last = Blocks(self.dice[way], lane.counts), 0.0
        while data := await self._read(way, source):
            faults = lane.faults
            if faults.swallow:
                lane.counts["swallowed"] += len(data)
                self.robbed.add(way)
                continue
            limit = faults.reset_after or faults.cut_after
            over = limit and blocks.offset + len(data) >= limit
            for delay_s, piece in blocks.pieces(data[: max(0, limit - blocks.offset)] if over else data, faults):
                last = max(last, lane.through_at(len(piece), clock()) + delay_s)
                await waiting.put((last, piece))
            if over:
                lane.counts["reset" if faults.reset_after else "cut"] += 1
                await self._end(waiting, reset=bool(faults.reset_after))
                return
        if way not in self.robbed:
            await waiting.put((last, b""))

    async def _read(self, way: Direction, source: asyncio.StreamReader) -> bytes:
        """An end by RST passes a closed way no sooner than data would, and is swallowed like data."""
        try:
            return await source.read(_READ_BYTES)
        except ConnectionError:
            await self.lanes[way].free.wait()
            if way in self.robbed:
                return b""
            raise

    async def _end(self, waiting: asyncio.Queue[tuple[float, bytes]], *, reset: bool) -> None:
        """Once all that came before has left."""
        await waiting.join()
        if reset:
            self.reset()
        self._over.set()

    async def _give(
        self, way: Direction, sink: asyncio.StreamWriter, waiting: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        lane, clock = self.lanes[way], asyncio.get_running_loop().time
        while True:
            when, piece = await waiting.get()
            if (early_s := when - clock()) > 0:
                await asyncio.sleep(early_s)
            await lane.free.wait()
            if not piece:
                sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()
            lane.counts["bytes"] += len(piece)
            waiting.task_done()


class UdpWire:
    """One listening socket; a socket of its own towards the target for each client's address."""

    def __init__(self, name: str, seed: int, target: Address) -> None:
        self.lanes: Lanes = {direction: Lane() for direction in Direction}
        self._name, self._seed, self._target = name, seed, target
        self._flows: dict[Address, Flow] = {}
        self._seen = 0
        self._socket: asyncio.DatagramTransport | None = None

    async def open(self, listen: Address) -> None:
        loop = asyncio.get_running_loop()
        front = datagram_socket()
        front.bind(listen)
        self._socket, _ = await loop.create_datagram_endpoint(lambda: Datagrams(self._arrived), sock=front)

    def set(self, direction: Direction, faults: Faults) -> None:
        self.lanes[direction].set(faults)

    def _arrived(self, data: bytes, client: Address) -> None:
        flow = self._flows.get(client)
        if flow is None:
            flow = self._flows[client] = self._new_flow(client)
            if len(self._flows) > _FLOWS:
                self._flows.pop(next(iter(self._flows))).close()
        flow.passes[Direction.UP].take(data)

    def _new_flow(self, client: Address) -> Flow:
        beyond = datagram_socket()
        beyond.connect(self._target)
        assert self._socket is not None
        front, name = self._socket, f"{self._name}/{Wire.UDP}/{self._seen}"
        self._seen += 1

        def up(data: bytes) -> None:
            # Nobody listens there, or the buffer is full: a network says nothing of either.
            with contextlib.suppress(OSError):
                beyond.send(data)

        sinks: dict[Direction, Callable[[bytes], None]] = {
            Direction.UP: up,
            Direction.DOWN: lambda data: front.sendto(data, client),
        }
        passes = {way: Pass(self.lanes[way], Dice(self._seed, f"{name}/{way}"), sinks[way]) for way in Direction}
        return Flow(beyond, passes)


def datagram_socket() -> socket.socket:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    return made


class Flow:
    """One client's datagrams, both ways."""

    def __init__(self, beyond: socket.socket, passes: dict[Direction, Pass]) -> None:
        self.passes, self._beyond = passes, beyond
        asyncio.get_running_loop().add_reader(beyond, self._answered)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._beyond)
        self._beyond.close()

    def _answered(self) -> None:
        with contextlib.suppress(OSError):
            self.passes[Direction.DOWN].take(self._beyond.recv(65_535))


class Pass:
    """One direction of a flow: datagrams leave in the order of their times."""

    def __init__(self, lane: Lane, dice: Dice, sink: Callable[[bytes], None]) -> None:
        self._lane, self._dice, self._sink = lane, dice, sink
        self._number = self._order = self._bytes = 0
        self._waiting: list[tuple[float, int, bytes]] = []
        self._behind: list[bytes] = []

    def take(self, data: bytes) -> None:
        """One datagram comes in."""
        loop, lane = asyncio.get_running_loop(), self._lane
        decided = fate(data, self._number, lane.faults, self._dice, lane.counts)
        self._number += 1
        if decided.overtaken and not self._behind:
            self._behind = decided.copies
            return
        copies = decided.copies
        if copies:
            copies, self._behind = [*copies, *self._behind], []
        for copy in copies:
            if self._bytes + len(copy) > _LANE_BYTES:
                lane.counts["overflowed"] += 1
                continue
            self._queue(loop, lane.through_at(len(copy), loop.time()) + decided.delay_s, copy)
        self._leave()

    def _queue(self, loop: asyncio.AbstractEventLoop, when: float, data: bytes) -> None:
        heapq.heappush(self._waiting, (when, self._order, data))
        self._order, self._bytes = self._order + 1, self._bytes + len(data)
        if when > loop.time() + _TICK_S:
            loop.call_at(when, self._leave)

    def _leave(self) -> None:
        # A timer may fire a hair before its time.
        soon = asyncio.get_running_loop().time() + _TICK_S
        while self._waiting and self._waiting[0][0] <= soon:
            _, _, data = heapq.heappop(self._waiting)
            self._bytes -= len(data)
            self._lane.counts["datagrams"] += 1
            self._lane.counts["bytes"] += len(data)
            self._sink(data)


class Datagrams(asyncio.DatagramProtocol):
    """Hands every datagram on."""

    def __init__(self, arrived: Callable[[bytes, Address], None]) -> None:
        self._arrived = arrived

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._arrived(data, addr)
