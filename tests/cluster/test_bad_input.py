"""Bad input gets a clear error with the right code, and nothing else is disturbed."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cluster.client import ask, chat, gather
from cluster.harness import DEMO, DEMO_FOLDER, Room

# More than the kernel buffers for a connection at both ends; an answer is ten times as long as its request.
UNREAD_BYTES = 64 << 20
UNREAD_GROWTH_KIB = 50_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    room = Room(tmp_path_factory.mktemp("bad-input"))
    try:
        room.coordinator()
        room.agent("one", "demo", fake="t1_s=0.005")
        room.ready()
        yield room
    finally:
        room.close()


@pytest.fixture(autouse=True)
def and_a_good_request_still_works(served: Room) -> Iterator[None]:
    """Defect 1: one rejected request must not poison later ones."""
    yield
    assert ask(served.url, chat(DEMO, max_tokens=3)).status_code == 200


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    return error


BAD: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "a model nobody has": (
        {"model": "mlx-serving-dem", "messages": [{"role": "user", "content": "x"}]},
        404,
        "model_not_found",
    ),
    "a path for a model": (
        {"model": "../../etc", "messages": [{"role": "user", "content": "x"}]},
        404,
        "model_not_found",
    ),
    "no messages": ({"model": DEMO}, 400, None),
    "messages of the wrong type": ({"model": DEMO, "messages": "hello"}, 400, None),
    "an unknown role": ({"model": DEMO, "messages": [{"role": "wizard", "content": "x"}]}, 400, None),
    "temperature as text": (chat(DEMO) | {"temperature": "hot"}, 400, None),
    "temperature out of range": (chat(DEMO) | {"temperature": 3}, 400, None),
    "top_p of zero": (chat(DEMO) | {"top_p": 0}, 400, None),
    "no tokens at all": (chat(DEMO) | {"max_tokens": 0}, 400, None),
    "a negative n": (chat(DEMO) | {"n": -1}, 400, None),
    "five stop strings": (chat(DEMO) | {"stop": ["a", "b", "c", "d", "e"]}, 400, None),
    "tools": (chat(DEMO) | {"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "unsupported_parameter"),
    "a schema": (chat(DEMO) | {"response_format": {"type": "json_object"}}, 400, "unsupported_parameter"),
    "a misspelt key": (chat(DEMO) | {"temprature": 0.5}, 400, "unsupported_parameter"),
    "more than the context": (chat(DEMO) | {"max_tokens": 10_000_000}, 400, "context_length_exceeded"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_body_gets_a_clear_error(served: Room, what: str) -> None:
    body, status, code = BAD[what]
    response = ask(served.url, body)
    assert response.status_code == status, response.text
    error = error_of(response)
    assert error["message"] and (code is None or error["code"] == code), error
    assert response.headers["x-should-retry"] == "false"


def test_an_unknown_model_names_close_ones(served: Room) -> None:
    error = error_of(ask(served.url, chat("mlx-serving-demmo")))
    assert DEMO in error["message"] and "--model" in error["message"], error


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff\xfe", b'{"model": 1e999}', b"nul"])
def test_malformed_json_is_a_400(served: Room, body: bytes) -> None:
    response = httpx.post(
        f"{served.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400, response.text
    error_of(response)


def test_a_prompt_of_100_kb_is_a_prompt(served: Room) -> None:
    """Defect 16: it was HTTP 500."""
    text = "mlx-serving is one endpoint for a room full of Macs. " * 1_900
    assert len(text) > 100_000
    response = ask(served.url, chat(DEMO, text, max_tokens=3))
    assert response.status_code == 200, response.text
    assert response.json()["usage"]["prompt_tokens"] > 10_000


def test_a_prompt_beyond_the_context_is_told_so(served: Room) -> None:
    response = ask(served.url, chat(DEMO, "mlx-serving is one endpoint for a room full of Macs. " * 12_000))
    assert response.status_code == 400
    assert error_of(response)["code"] == "context_length_exceeded"


def test_an_oversized_body_is_a_413(served: Room) -> None:
    response = ask(served.url, chat(DEMO, "x" * (40 << 20)))
    assert response.status_code == 413, response.text[:300]
    error_of(response)


def test_a_wrong_path_and_a_wrong_method_answer_in_json(served: Room) -> None:
    for response, status in [
        (httpx.get(f"{served.url}/v1/nothing"), 404),
        (httpx.get(f"{served.url}/v1/chat/completions"), 405),
    ]:
        assert response.status_code == status
        error_of(response)


def test_a_foreign_host_header_is_refused(served: Room) -> None:
    response = httpx.get(f"{served.url}/v1/models", headers={"host": "evil.example"})
    assert response.status_code in (403, 421), response.text
    error_of(response)


def test_garbage_on_the_agents_port_disturbs_nothing(served: Room) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64, b""):
        with socket.create_connection(("127.0.0.1", served.cluster_port), 5) as peer:
            peer.sendall(garbage)
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        for size in (1, 64, 1200):
            peer.sendto(bytes([0xC3]) * size, ("127.0.0.1", served.cluster_port))
    assert all(answer.clean for answer in gather(served.url, [chat(DEMO, max_tokens=3)] * 4))


def test_a_client_that_reads_no_answers_is_not_asked_for_more(served: Room) -> None:
    coordinator, requests = served.processes[0], b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1_000
    before, sent = coordinator.rss_kib(), 0
    with socket.create_connection(("127.0.0.1", served.api_port), 5) as peer:
        try:
            while sent < UNREAD_BYTES:
                sent += peer.send(requests)
        except TimeoutError:
            # The kernel's buffers are full, at both ends.
            assert coordinator.rss_kib() - before < UNREAD_GROWTH_KIB
            return
    raise AssertionError(f"{sent} bytes of requests were taken from a client that reads nothing")


def test_a_hint_that_is_not_used_is_named(served: Room) -> None:
    response = ask(served.url, chat(DEMO, max_tokens=3, store=True, user="someone", metadata={"a": "b"}))
    assert response.status_code == 200
    assert response.headers["x-mlx-ignored-params"] == "metadata, store", "a user names a session: that is used"


def test_a_promise_we_do_not_keep_is_named(served: Room) -> None:
    url = f"{served.url}/v1/chat/completions"
    response = httpx.post(url, json=chat(DEMO, max_tokens=3), headers={"last-event-id": "7"}, timeout=60)
    assert "last-event-id" in response.headers["x-mlx-ignored-params"], "without an idempotency key"


@pytest.mark.parametrize("fault", ["garbage_after=3", "exit_after=3", "truncate_after=3"])
def test_a_runtime_that_speaks_garbage_fails_only_its_own_requests(room: Room, fault: str) -> None:
    """Defect 9. The faulty runtime holds a model of its own, so that every one of its requests meets the fault."""
    faulty = room.folder / "faulty-model"
    shutil.copytree(DEMO_FOLDER, faulty)
    room.coordinator()
    room.agent("bad", str(faulty), fake=f"t1_s=0.01,{fault}")
    room.agent("good", "demo", fake="t1_s=0.01")
    room.ready(faulty.name)
    room.ready(DEMO)
    first, *others = gather(room.url, [chat(faulty.name, max_tokens=20), *[chat(DEMO, max_tokens=20)] * 4])
    assert not first.clean and not first.done, first
    assert [answer.clean for answer in others] == [True] * 4, others
    assert room.answers("/livez") and room.answers("/readyz")


def test_01_one_rejected_request_does_not_poison_later_ones(served: Room) -> None:
    rejected = [ask(served.url, chat(DEMO, temperature="hot")).status_code for _ in range(20)]
    good = [ask(served.url, chat(DEMO, max_tokens=2)).status_code for _ in range(4)]
    assert (rejected, good) == ([400] * 20, [200] * 4)


def test_no_prompt_is_in_any_artefact(served: Room) -> None:
    canary = "zqx-canary-7731"
    ask(served.url, chat(DEMO, canary, max_tokens=3))
    ask(served.url, chat(DEMO, canary) | {"temperature": "hot"})
    ask(served.url, chat(DEMO, canary) | {"max_tokens": 10_000_000})
    artefacts = [path for path in served.folder.rglob("*") if path.is_file() and path.stat().st_size < 50_000_000]
    assert artefacts
    leaks = [path for path in artefacts if canary.encode() in path.read_bytes()]
    assert not leaks, leaks
    assert canary not in httpx.get(f"{served.url}/metrics").text
