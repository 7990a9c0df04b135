"""API keys on real processes: who gets in, who is thrown out, and that no secret is written down anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest

from cluster.client import Answer, chat, stream
from cluster.group import Coordinator, Group
from cluster.harness import BINARY, DEMO, Room, until

SLOW = "t1_s=0.05"


def cli(*arguments: str, url: str, home: Path, key: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command line against a coordinator, as whoever can read that home."""
    environment = os.environ | ({"MLX_SERVING_API_KEY": key} if key else {})
    command = [BINARY, *arguments, "--url", url, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def made(*arguments: str, url: str, home: Path) -> str:
    done = cli("keys", "create", *arguments, url=url, home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mlx_") and done.stdout.count("\n") == 1, "the key alone on stdout"
    assert done.stdout.strip() not in done.stderr
    return done.stdout.strip()


def key_id(key: str) -> str:
    return key.split("_")[1]


def client(room: Room, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{room.url}/v1", api_key=key, max_retries=0)


def ask(api: openai.OpenAI, model: str = DEMO) -> str:
    answer = api.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    return answer.choices[0].message.content or ""


def started(room: Room, fake: str = "") -> Path:
    """A coordinator and an agent; returns the coordinator's home."""
    room.coordinator()
    room.agent("one", "demo", fake=fake)
    room.ready()
    return room.folder / "coordinator-home"


def test_a_newcomer_needs_no_key_and_from_the_first_one_on_everybody_does(room: Room) -> None:
    home = started(room)
    nowhere = room.folder / "nowhere"
    assert ask(client(room, "none"))
    assert cli("keys", "create", "--name", "x", url=room.url, home=nowhere).returncode == 5, "nobody administers"
    key = made("--name", "ada", url=room.url, home=home)

    with pytest.raises(openai.AuthenticationError) as refused:
        ask(client(room, "none"))
    assert refused.value.code == "invalid_api_key" and refused.value.type == "authentication_error"
    assert ask(client(room, key))
    assert [model.id for model in client(room, key).models.list()] == [DEMO]
    with pytest.raises(openai.AuthenticationError):
        ask(client(room, key[:-1] + ("0" if key[-1] != "0" else "1")))
    assert [room.answers(path) for path in ("/livez", "/readyz", "/routablez")] == [True] * 3

    locked = cli("status", url=room.url, home=nowhere)
    assert locked.returncode == 5 and "keys create" in locked.stderr, locked.stderr
    assert cli("status", url=room.url, home=home).returncode == 0
    assert cli("chat", "Hi", url=room.url, home=nowhere, key=key).returncode == 0
    listed = json.loads(cli("keys", "ls", "--output", "json", url=room.url, home=home).stdout)
    assert [(entry["id"], entry["name"]) for entry in listed["keys"]] == [(key_id(key), "ada")]


def test_a_key_does_what_its_scopes_and_models_say_and_changes_with_them(room: Room) -> None:
    home = started(room)
    reader = made("--name", "board", "--scope", "read", url=room.url, home=home)
    admin = made("--name", "ops", "--scope", "admin", url=room.url, home=home)
    other = made("--name", "ci", "--model", "org/other", "--expires", "30d", url=room.url, home=home)

    with pytest.raises(openai.PermissionDeniedError) as refused:
        ask(client(room, reader))
    assert refused.value.code == "permission_denied"
    status = httpx.get(f"{room.url}/api/v1/status", headers={"authorization": f"Bearer {reader}"})
    assert status.status_code == 200
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client(room, other))
    assert missing.value.code == "model_not_found"
    assert list(client(room, other).models.list()) == []

    # From elsewhere, with a key of the scope admin.
    nowhere = room.folder / "nowhere"
    wider = cli("keys", "change", key_id(other), "--any-model", url=room.url, home=nowhere, key=admin)
    assert wider.returncode == 0 and "all" in wider.stdout, wider.stderr
    assert ask(client(room, other))
    not_allowed = cli("keys", "ls", url=room.url, home=nowhere, key=other)
    assert not_allowed.returncode == 5 and "scope 'admin'" in not_allowed.stderr, not_allowed.stderr

    second = cli("keys", "rotate", key_id(other), url=room.url, home=home).stdout.strip()
    assert ask(client(room, other)) and ask(client(room, second)), "both work while users change"
    assert cli("keys", "rotate", key_id(other), "--finish", url=room.url, home=home).returncode == 0
    assert ask(client(room, second))
    with pytest.raises(openai.AuthenticationError):
        ask(client(room, other))

    trail = cli("audit", url=room.url, home=home).stdout
    assert trail.count("create key") == 3 and f"{key_id(admin)}  change key {key_id(other)}" in trail, trail
    verified = cli("audit", "--verify", url=room.url, home=home)
    # What was done to keys, and the rise of the cluster's version.
    assert verified.returncode == 0 and verified.stdout.startswith("7 entries, unbroken"), verified


def test_a_revoked_key_ends_within_a_second_on_every_gateway(group: Group, figure: Callable[[str], None]) -> None:
    group.found()
    group.worker("one", "demo", fake=SLOW)
    group.all_ready(DEMO, 1)
    follower = group.followers()[0]
    home = group.folder / follower.name
    key = made("--name", "leaked", url=follower.url, home=home)
    admin_key = (home / "coordinator" / "admin-key").read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    body = chat(DEMO, max_tokens=2000, seed=7)
    ended: dict[str, float] = {}
    begun: set[str] = set()

    async def watched(member: Coordinator) -> Answer:
        def seen(answer: Answer) -> None:
            if len(answer.pieces) >= 3:
                begun.add(member.name)

        answer = await stream(member.url, body, seen, headers=headers)
        ended[member.name] = time.monotonic()
        return answer

    async def revoked() -> tuple[tuple[float, float], list[Answer]]:
        running = [asyncio.create_task(watched(member)) for member in group.members]
        while len(begun) < len(group.members):
            await asyncio.sleep(0.02)
            assert not any(task.done() for task in running), running
        asked_at = time.monotonic()
        async with httpx.AsyncClient(headers={"x-api-key": admin_key}) as administrator:
            done = await administrator.delete(f"{follower.url}/api/v1/admin/keys/{key_id(key)}")
        assert done.status_code == 200, done.text
        return (asked_at, time.monotonic()), await asyncio.gather(*running)

    (asked_at, acknowledged_at), answers = asyncio.run(revoked())
    for answer in answers:
        assert answer.broken and not answer.done, "cut, never a clean end"
        assert answer.error is not None and answer.error["code"] == "invalid_api_key", answer
    slowest = max(ended.values())
    late = slowest - acknowledged_at
    assert late < 1.0, f"the last stream ended {late:.2f} s after the revocation was acknowledged"
    figure(
        f"streams at three gateways were cut {(slowest - asked_at) * 1000:.0f} ms after the revocation was asked for"
    )
    for member in group.members:
        refused = httpx.post(f"{member.url}/v1/chat/completions", json=body, headers=headers)
        assert refused.status_code == 401, member.name


def test_keys_survive_a_restart_and_no_secret_is_written_anywhere(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUST_LOG", "debug")
    home = started(room)
    first = made("--name", "ada", url=room.url, home=home)
    second = cli("keys", "rotate", key_id(first), url=room.url, home=home).stdout.strip()
    gone = made("--name", "gone", url=room.url, home=home)
    assert cli("keys", "revoke", key_id(gone), url=room.url, home=home).returncode == 0
    for key in (first, second):
        assert ask(client(room, key))
    admin_key = home / "coordinator" / "admin-key"
    assert admin_key.stat().st_mode & 0o777 == 0o600
    old_admin = admin_key.read_text().strip()
    assert cli("status", url=room.url, home=home).returncode == 0

    room.processes[0].kill()
    room.coordinator()
    for key in (first, second):
        until("the agent is back", lambda key=key: ready(room, key))
        assert ask(client(room, key))
    for wrong in ("none", gone, old_admin):
        with pytest.raises(openai.AuthenticationError):
            ask(client(room, wrong))
    new_admin = admin_key.read_text().strip()
    assert new_admin != old_admin
    assert cli("keys", "ls", url=room.url, home=home).stdout.count("\n") == 3

    secrets = [key.rsplit("_", 1)[1].encode() for key in (first, second, gone, old_admin, new_admin)]
    searched = 0
    for file in room.folder.rglob("*"):
        if file.is_file() and file != admin_key:
            searched += 1
            held = file.read_bytes()
            assert not any(secret in held for secret in secrets), f"{file} holds a secret"
    assert searched > 5
    # A clean end takes the local key with it.
    room.processes[-1].send(signal.SIGTERM)
    room.processes[-1].wait()
    assert not admin_key.exists()


def ready(room: Room, key: str) -> bool:
    status = httpx.get(f"{room.url}/v1/models", headers={"x-api-key": key})
    return any(model["ready"] for model in status.json()["data"])


def test_an_api_beyond_loopback_serves_nobody_without_a_key(room: Room) -> None:
    process = room.coordinator(api_host="0.0.0.0")  # noqa: S104 - that is what is tested
    home = room.folder / "coordinator-home"

    def get(path: str, **headers: str) -> int:
        return httpx.get(f"{room.url}{path}", headers=headers).status_code

    assert get("/livez") == 200
    assert [get(path) for path in ("/v1/models", "/metrics", "/api/v1/status", "/api/v1/admin/keys")] == [401] * 4
    assert get("/livez", host="evil.example") == 421, "a page's own name for this machine"
    key = made("--name", "ada", url=room.url, home=home)
    assert get("/v1/models", **{"x-api-key": key}) == 200
    assert get("/v1/models", **{"x-api-key": key, "host": "mini-07.local"}) == 200
    assert process.said().count("plain HTTP") == 1, "advised once"
