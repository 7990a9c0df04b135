"""The fault proxy with real sockets: byte-exact at rest, and each fault does what it says and nothing else."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cluster.fault_proxy import FaultProxy, Link
from cluster.faults import BLOCK_BYTES, Direction, Wire
from cluster.harness import until

PATIENCE_S = 30.0
UP, DOWN = Direction


class Target:
    """A TCP listener and a UDP socket on one port."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.udp = datagrams()
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.udp.bind(self.address)

    def accepted(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE_S)
        return connection


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def link(target: Target) -> Iterator[Link]:
    with FaultProxy(seed=7) as proxy:
        yield proxy.link(("127.0.0.1", 0), target.address)


def datagrams() -> socket.socket:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    return made


def dialled(link: Link) -> socket.socket:
    return socket.create_connection(link.address, PATIENCE_S)


def received(connection: socket.socket, size: int | None = None) -> bytes:
    """So many bytes, or all until the end; an RST ends it as well."""
    found = b""
    while size is None or len(found) < size:
        try:
            data = connection.recv(65_536 if size is None else size - len(found))
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data
    return found


def is_reset(connection: socket.socket) -> bool:
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    return False


def silent(connection: socket.socket) -> bool:
    """Nothing has come by now, not even the end."""
    connection.settimeout(0.1)
    try:
        connection.recv(65_536)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        connection.settimeout(PATIENCE_S)


def exchanged(link: Link, target: Target, count: int = 200) -> list[int]:
    """The numbers of the datagrams that reached the target, in their order; the last of those sent always arrives."""
    client = datagrams()
    before = link.counts()["udp.up.arrived"]
    for number in range(count):
        client.sendto(number.to_bytes(4, "big") * 50, link.address)
    counted(link, "udp.up.arrived", before + count)
    link.heal()
    client.sendto(b"end", link.address)
    return list(numbers_until_end(target))


def counted(link: Link, what: str, count: int) -> None:
    """The proxy obeys orders and reads sockets in no certain order; its counts say what it has dealt with."""
    until(f"{count} of {what}", lambda: link.counts()[what] >= count)


def numbers_until_end(target: Target) -> Iterator[int]:
    while (data := target.udp.recv(2_048)) != b"end":
        yield int.from_bytes(data[:4], "big")


def test_without_faults_a_connection_is_byte_exact_in_both_directions(link: Link, target: Target) -> None:
    sent = random.Random(1).randbytes(3 << 20)
    client = dialled(link)
    there = target.accepted()
    for source, sink in ((client, there), (there, client)):
        writing = threading.Thread(target=write_all, args=(source, sent))
        writing.start()
        assert received(sink) == sent
        writing.join()
    counts = link.counts()
    assert (counts["tcp.up.bytes"], counts["tcp.down.bytes"]) == (len(sent), len(sent))


def write_all(source: socket.socket, data: bytes) -> None:
    source.sendall(data)
    source.shutdown(socket.SHUT_WR)


def test_one_direction_may_end_before_the_other(link: Link, target: Target) -> None:
    client = dialled(link)
    there = target.accepted()
    client.shutdown(socket.SHUT_WR)
    assert there.recv(1) == b""
    there.sendall(b"still here")
    assert received(client, 10) == b"still here"


def test_without_faults_datagrams_come_whole_once_and_in_order_and_answers_find_their_sender(
    link: Link, target: Target
) -> None:
    assert exchanged(link, target) == list(range(200))
    clients = [datagrams() for _ in range(3)]
    for number, client in enumerate(clients):
        client.sendto(bytes([number]) * 1_400, link.address)
        data, sender = target.udp.recvfrom(2_048)
        target.udp.sendto(data[::-1] + b"!", sender)
    assert [client.recv(2_048) for client in clients] == [bytes([number]) * 1_400 + b"!" for number in range(3)]


def test_lost_datagrams_are_counted_and_the_same_in_every_run(target: Target) -> None:
    runs: list[list[int]] = []
    for seed in (7, 7, 8):
        with FaultProxy(seed) as proxy:
            link = proxy.link(("127.0.0.1", 0), target.address)
            link.set(UP, loss=0.3)
            runs.append(exchanged(link, target))
            assert link.counts()["udp.up.lost"] == 200 - len(runs[-1])
    assert runs[0] == runs[1] != runs[2]
    assert 100 < len(runs[0]) < 180 and runs[0] == sorted(runs[0])


def test_reordered_datagrams_all_arrive_some_behind_their_follower(link: Link, target: Target) -> None:
    link.set(UP, reorder=0.2)
    got = exchanged(link, target)
    assert sorted(got) == list(range(200)) and got != sorted(got)
    assert all(abs(number - place) <= 1 for place, number in enumerate(got)), "overtaken by one, not by many"


def test_duplicates_come_twice(link: Link, target: Target) -> None:
    link.set(UP, duplicate=0.2)
    got = exchanged(link, target)
    assert sorted(set(got)) == list(range(200))
    assert len(got) - 200 == link.counts()["udp.up.duplicated"] > 10


def test_shortened_and_flipped_datagrams_arrive_spoilt(link: Link, target: Target) -> None:
    client, sent = datagrams(), bytes(1_000)
    link.set(UP, shorten=1.0)
    client.sendto(sent, link.address)
    assert len(target.udp.recv(2_048)) < 1_000
    link.set(UP, flip=1.0)
    client.sendto(sent, link.address)
    assert sum(byte.bit_count() for byte in target.udp.recv(2_048)) == 1


def test_a_delay_delays_one_direction_and_keeps_the_order(link: Link, target: Target) -> None:
    link.set(UP, delay_s=0.3)
    client = datagrams()
    began = time.monotonic()
    for number in range(20):
        client.sendto(bytes([number]), link.address)
    got = [target.udp.recvfrom(16) for _ in range(20)]
    assert time.monotonic() - began >= 0.3
    assert [data[0] for data, _ in got] == list(range(20))
    connection = dialled(link)
    began = time.monotonic()
    connection.sendall(b"x")
    there = target.accepted()
    assert received(there, 1) == b"x"
    assert time.monotonic() - began >= 0.3


def test_delayed_bytes_travel_together_rather_than_one_delay_after_another(link: Link, target: Target) -> None:
    link.set(delay_s=0.5)
    client = dialled(link)
    there = target.accepted()
    began = time.monotonic()
    client.sendall(bytes(100 * BLOCK_BYTES))
    assert len(received(there, 100 * BLOCK_BYTES)) == 100 * BLOCK_BYTES
    assert 0.5 <= time.monotonic() - began < 25, "a hundred delays in a row are fifty seconds"


def test_jitter_lets_datagrams_overtake_but_never_bytes_of_a_connection(link: Link, target: Target) -> None:
    link.set(UP, jitter_s=0.3)
    client = datagrams()
    for number in range(50):
        client.sendto(bytes([number]), link.address)
    got = [target.udp.recv(16)[0] for _ in range(50)]
    assert sorted(got) == list(range(50)) and got != sorted(got)
    sent = random.Random(2).randbytes(50 * BLOCK_BYTES)
    connection = dialled(link)
    connection.sendall(sent)
    assert received(target.accepted(), len(sent)) == sent


def test_loss_on_tcp_is_a_late_block_and_no_lost_byte(link: Link, target: Target) -> None:
    link.set(UP, wire=Wire.TCP, loss=0.1, resend_s=0.05)
    sent = random.Random(3).randbytes(100 * BLOCK_BYTES)
    client = dialled(link)
    client.sendall(sent)
    assert received(target.accepted(), len(sent)) == sent
    assert link.counts()["tcp.up.late"] > 3


def test_a_flipped_bit_of_a_connection_is_one_bit(link: Link, target: Target) -> None:
    link.set(UP, flip=0.2)
    client = dialled(link)
    client.sendall(bytes(50 * BLOCK_BYTES))
    got = received(target.accepted(), 50 * BLOCK_BYTES)
    assert sum(byte.bit_count() for byte in got) == link.counts()["tcp.up.flipped"] > 2


@pytest.mark.parametrize("fault", ["cut_after", "reset_after"])
def test_a_connection_is_cut_after_exactly_so_many_bytes(link: Link, target: Target, fault: str) -> None:
    link.set(DOWN, None, **{fault: 5_000})
    client = dialled(link)
    there = target.accepted()
    client.sendall(b"not counted")
    assert received(there, 11) == b"not counted"
    sent = random.Random(4).randbytes(50_000)
    there.sendall(sent)
    assert received(client, 5_000) == sent[:5_000]
    assert is_reset(client) == (fault == "reset_after")


def test_a_reset_is_an_rst_on_both_ends_and_new_connections_work(link: Link, target: Target) -> None:
    client = dialled(link)
    there = target.accepted()
    client.sendall(b"x")
    assert received(there, 1) == b"x"
    assert link.reset() == 1
    assert is_reset(client) and is_reset(there)
    client = dialled(link)
    client.sendall(b"y")
    assert received(target.accepted(), 1) == b"y"


def test_a_target_that_is_gone_is_a_reset(link: Link, target: Target) -> None:
    target.listener.close()
    try:
        client = dialled(link)
    except ConnectionResetError:  # it came before the dialling was over
        return
    assert is_reset(client)


def test_a_partition_of_one_direction_holds_bytes_back_drops_datagrams_and_lets_the_other_pass(
    link: Link, target: Target
) -> None:
    client, packets = dialled(link), datagrams()
    there = target.accepted()
    packets.sendto(b"before", link.address)
    data, sender = target.udp.recvfrom(16)
    assert data == b"before"
    link.set(UP, blocked=True)
    client.sendall(b"held")
    packets.sendto(b"dropped", link.address)
    counted(link, "udp.up.blocked", 1)
    there.sendall(b"free")
    target.udp.sendto(b"free too", sender)
    assert received(client, 4) == b"free" and packets.recv(16) == b"free too"
    assert silent(there)
    link.heal()
    assert received(there, 4) == b"held"
    packets.sendto(b"after", link.address)
    assert target.udp.recv(16) == b"after"


def test_an_end_does_not_cross_a_partition(link: Link, target: Target) -> None:
    client = dialled(link)
    there = target.accepted()
    link.set(blocked=True)
    client.close()
    assert silent(there)
    link.heal()
    assert received(there) == b""


def test_a_half_open_connection_takes_everything_and_says_nothing_and_is_reset_in_the_end(
    link: Link, target: Target
) -> None:
    link.set(swallow=True)
    client = dialled(link)
    there = target.accepted()
    client.sendall(bytes(100_000))
    counted(link, "tcp.up.swallowed", 100_000)
    assert silent(client) and silent(there)
    link.heal()
    assert is_reset(client) and is_reset(there)
    client = dialled(link)
    client.sendall(b"new")
    assert received(target.accepted(), 3) == b"new"


def test_bandwidth_is_bounded_on_both_wires(link: Link, target: Target) -> None:
    link.set(UP, bits_per_s=1_000_000)
    client = dialled(link)
    there = target.accepted()
    began = time.monotonic()
    client.sendall(bytes(100_000))
    assert len(received(there, 100_000)) == 100_000
    assert time.monotonic() - began >= 0.8, "100 kB at 1 Mbit/s take 0.8 s"
    packets = datagrams()
    for number in range(600):
        packets.sendto(number.to_bytes(4, "big") + bytes(996), link.address)
    counted(link, "udp.up.arrived", 600)
    link.set(UP)
    packets.sendto(b"end", link.address)
    # The queue of a slow link is bounded: what it cannot hold is dropped, and what it took leaves in order.
    firsts = list(itertools.takewhile(lambda data: data != b"end", (target.udp.recv(2_048) for _ in itertools.count())))
    numbers = [int.from_bytes(data[:4], "big") for data in firsts]
    assert numbers == sorted(numbers)
    assert link.counts()["udp.up.overflowed"] == 600 - len(numbers) > 100


def test_only_the_chosen_wire_is_touched(link: Link, target: Target) -> None:
    link.set(wire=Wire.TCP, blocked=True)
    assert exchanged_one(link, target) == b"udp"
    link.set(wire=Wire.UDP, blocked=True)
    link.set(wire=Wire.TCP)
    client = dialled(link)
    client.sendall(b"tcp")
    assert received(target.accepted(), 3) == b"tcp"


def exchanged_one(link: Link, target: Target) -> bytes:
    datagrams().sendto(b"udp", link.address)
    return target.udp.recv(16)


def test_a_misspelt_fault_is_refused(link: Link) -> None:
    with pytest.raises(ValueError, match="los"):
        link.set(los=0.5)
