"""The inbox and the outbox: bounded, in order, and neither makes the engine or the reader wait when it must not."""

import threading

from mlx_runtime.inbox import Inbox
from mlx_runtime.outbox import Outbox
from mlx_runtime.protocol import Cancel, Info


def test_messages_are_taken_in_the_order_they_came() -> None:
    inbox = Inbox()
    for call in range(5):
        assert inbox.offer(Info(call), 10)
    assert inbox.take(0.0) == [Info(call) for call in range(5)]
    assert inbox.take(0.0) == []


def test_a_full_inbox_refuses_but_still_takes_cancels() -> None:
    inbox = Inbox(messages_max=2, bytes_max=100)
    assert [inbox.offer(Info(call), 1) for call in range(3)] == [True, True, False]
    assert [inbox.offer(Cancel((1,)), 1) for _ in range(3)] == [True, True, False]
    inbox.take(0.0)
    assert inbox.offer(Info(9), 1)


def test_bytes_fill_an_inbox_too_but_one_message_always_fits() -> None:
    inbox = Inbox(messages_max=10, bytes_max=100)
    assert inbox.offer(Info(1), 500)
    assert not inbox.offer(Info(2), 1)
    inbox.take(0.0)
    assert [inbox.offer(Info(3), 60), inbox.offer(Info(4), 60)] == [True, False]


def test_a_waiting_taker_wakes_up_with_the_first_message() -> None:
    inbox, taken = Inbox(), list[object]()
    taker = threading.Thread(target=lambda: taken.extend(inbox.take(60.0)))
    taker.start()
    inbox.offer(Info(1), 1)
    taker.join(60.0)
    assert taken == [Info(1)]


def test_frames_are_taken_joined_and_count_until_they_are_sent() -> None:
    outbox = Outbox(bytes_max=10)
    for frame in (b"aaaa", b"bbbb", b"cccc"):
        outbox.post(frame)
    assert outbox.over
    first = outbox.take()
    assert first == b"aaaabbbb"
    assert outbox.over
    outbox.sent(len(first))
    assert not outbox.over
    assert outbox.take() == b"cccc"


def test_a_frame_longer_than_the_bound_goes_out_alone() -> None:
    outbox = Outbox(bytes_max=3)
    outbox.post(b"a" * 50)
    outbox.post(b"b")
    assert outbox.take() == b"a" * 50


def test_a_closed_outbox_gives_what_waits_and_then_nothing() -> None:
    outbox = Outbox()
    outbox.post(b"last")
    outbox.close()
    outbox.post(b"too late")
    assert [outbox.take(), outbox.take()] == [b"last", None]


def test_the_reader_waits_while_too_much_waits_and_goes_on_when_it_is_sent() -> None:
    outbox, went_on = Outbox(bytes_max=3), threading.Event()
    outbox.post(b"aaaa")

    def read() -> None:
        outbox.wait_for_room()
        went_on.set()

    threading.Thread(target=read, daemon=True).start()
    assert not went_on.is_set()
    outbox.sent(len(outbox.take() or b""))
    assert went_on.wait(60.0)
    outbox.wait_until_empty(60.0)
