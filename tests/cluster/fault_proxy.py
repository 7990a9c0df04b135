"""A proxy that spoils connections on purpose, in a process of its own so that a busy test does not slow it down.

Owns links: each listens on one address for TCP and UDP and leads to one target; the faults of each wire and direction
are switched while it runs. A link ends with its proxy, and the proxy with the pipe of whoever started it. Refuses to
understand what it passes on: to it TLS and QUIC are bytes.

    with FaultProxy(seed=7) as proxy:
        link = proxy.link(("127.0.0.2", 7443), ("127.0.0.1", 7443))
        link.set(Direction.DOWN, wire=Wire.UDP, loss=0.1, delay_s=0.05)
        link.heal()
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.fault_wires import Address, TcpWire, UdpWire
from cluster.faults import Direction, Faults, Wire

_TESTS = Path(__file__).resolve().parents[1]


class FaultProxy:
    """The proxy's process, from outside."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._links = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cluster.fault_proxy", str(seed)],
            cwd=_TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def link(self, listen: Address, target: Address) -> Link:
        """TCP and UDP from one address to another; port 0 takes one that is free. Their order tells links apart."""
        name = str(self._links)
        self._links += 1
        host, port = self.tell({"do": "link", "link": name, "listen": listen, "target": target})
        return Link(self, name, (host, port))

    def tell(self, order: dict[str, Any]) -> Any:
        """One order, one answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            answer = self._process.stdout.readline()
        assert answer, f"the fault proxy is gone: {self._process.poll()}"
        told = json.loads(answer)
        if "error" in told:
            raise ValueError(told["error"])
        return told["done"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Link:
    """One way from a client to a target, from outside."""

    def __init__(self, proxy: FaultProxy, name: str, address: Address) -> None:
        self._proxy, self._name, self.address = proxy, name, address

    def set(self, direction: Direction | None = None, wire: Wire | None = None, **faults: float) -> None:
        """Replaces the faults of one or both directions of one or both wires."""
        directions = [direction] if direction else list(Direction)
        wires = [wire] if wire else list(Wire)
        order = {"do": "set", "link": self._name, "directions": directions, "wires": wires, "faults": faults}
        self._proxy.tell(order)

    def heal(self) -> None:
        self.set()

    def reset(self) -> int:
        """RST to both ends of every TCP connection; tells how many there were."""
        broken: int = self._proxy.tell({"do": "reset", "link": self._name})
        return broken

    def counts(self) -> Counter[str]:
        """What it did so far, as `tcp.up.bytes`, `udp.down.lost` and so on."""
        return Counter(self._proxy.tell({"do": "counts", "link": self._name}))


class Server:
    """The proxy's process, from inside."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._links: dict[str, dict[Wire, TcpWire | UdpWire]] = {}

    async def serve(self) -> None:
        """Obeys one order a line until the pipe ends."""
        orders = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            try:
                answer = {"done": await self._obey(json.loads(line))}
            except (OSError, TypeError, KeyError, ValueError) as error:
                answer = {"error": repr(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        # Connections have nothing to say at the end.
        os._exit(0)

    async def _obey(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "link":
                return await self._link(order["link"], tuple(order["listen"]), tuple(order["target"]))
            case "set":
                faults = Faults(**order["faults"])
                for wire in order["wires"]:
                    for direction in order["directions"]:
                        self._links[order["link"]][Wire(wire)].set(Direction(direction), faults)
                return None
            case "reset":
                wire = self._links[order["link"]][Wire.TCP]
                return wire.reset() if isinstance(wire, TcpWire) else 0
            case "counts":
                return self._counts(order["link"])
            case unknown:
                raise ValueError(unknown)

    async def _link(self, name: str, listen: Address, target: Address) -> Address:
        tcp, udp = TcpWire(name, self._seed, target), UdpWire(name, self._seed, target)
        address = await tcp.open(listen)
        await udp.open(address)
        self._links[name] = {Wire.TCP: tcp, Wire.UDP: udp}
        return address

    def _counts(self, name: str) -> dict[str, int]:
        return {
            f"{wire}.{direction}.{what}": count
            for wire, spoiler in self._links[name].items()
            for direction, lane in spoiler.lanes.items()
            for what, count in lane.counts.items()
        }


if __name__ == "__main__":
    asyncio.run(Server(int(sys.argv[1])).serve())
