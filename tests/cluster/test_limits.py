"""Limits of API keys on real processes: one bound for the whole cluster, whichever gateway is asked, whoever leads."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from cluster.client import chat, opened
from cluster.group import Coordinator, Group
from cluster.harness import DEMO, until
from cluster.test_keys import cli, key_id, made

QUICK = "t1_s=0.002"
SLOW = "t1_s=0.05"


def found(group: Group, fake: str = QUICK) -> None:
    group.found()
    group.worker("one", "demo", fake=fake)
    group.all_ready(DEMO, 1)


def key(group: Group, *limits: str) -> str:
    """A new key, which every gateway knows."""
    member = group.members[0]
    text = made("--name", "limited", *limits, url=member.url, home=group.folder / member.name)
    for other in group.members:
        until(f"{other.name} knows the key", lambda other=other: listed(other, text) == 200)
    return text


def listed(member: Coordinator, text: str) -> int:
    return httpx.get(f"{member.url}/v1/models", headers={"x-api-key": text}).status_code


def ask(member: Coordinator, text: str, **more: Any) -> httpx.Response:
    body = chat(DEMO, **{"max_tokens": 2, **more})
    return httpx.post(f"{member.url}/v1/chat/completions", json=body, headers={"x-api-key": text}, timeout=60)


def code(response: httpx.Response) -> str:
    return response.json()["error"]["code"]


@dataclass
class Usage:
    """What the key used this month, as an administrator sees it."""

    requests: int
    tokens: int


def usage(group: Group, member: Coordinator, text: str) -> Usage:
    shown = cli("keys", "show", key_id(text), "--output", "json", url=member.url, home=group.folder / member.name)
    month = json.loads(shown.stdout)["key"]["usage"]["this_month"]
    return Usage(month["requests"], month["prompt_tokens"] + month["answer_tokens"])


def test_five_requests_a_minute_are_five_whichever_gateway_is_asked(group: Group) -> None:
    found(group)
    text = key(group, "--rpm", "5")
    began = time.monotonic()
    answers = [ask(group.members[nth % 3], text) for nth in range(5)]
    refused = [ask(member, text) for member in group.members]
    assert time.monotonic() - began < 12, "too slow a machine: the next request is free again"
    assert [answer.status_code for answer in answers] == [200] * 5, [answer.text for answer in answers]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == list("43210")
    assert all(answer.headers["x-ratelimit-limit-requests"] == "5" for answer in answers)
    for response in refused:
        assert (response.status_code, code(response)) == (429, "rate_limit_exceeded"), response.text
        assert 0 < int(response.headers["retry-after-ms"]) <= 12_000
        assert int(response.headers["retry-after"]) <= 12
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert response.headers["x-ratelimit-reset-requests"].endswith("s")

    api = openai.OpenAI(base_url=f"{group.members[1].url}/v1", api_key=text, max_retries=0)
    with pytest.raises(openai.RateLimitError) as limited:
        api.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": "Hi"}])
    assert limited.value.code == "rate_limit_exceeded" and limited.value.type == "rate_limit_error"
    assert limited.value.response.headers["x-ratelimit-limit-requests"] == "5"
    # As every SDK does by itself: whoever waits as long as he is told is answered.
    patient = openai.OpenAI(base_url=f"{group.members[1].url}/v1", api_key=text, max_retries=2)
    answer = patient.chat.completions.create(model=DEMO, messages=[{"role": "user", "content": "Hi"}], max_tokens=2)
    assert answer.choices[0].message.content is not None


def test_two_at_once_are_two_and_a_client_that_hangs_up_makes_room(group: Group) -> None:
    found(group, SLOW)
    text = key(group, "--concurrency", "2")
    headers = {"x-api-key": text}
    endless = chat(DEMO, max_tokens=400, logit_bias={"0": -100})

    async def crowd() -> None:
        first, second, third = (member.url for member in group.members)
        async with opened(first, endless, headers=headers) as one:
            assert one.status_code == 200
            async with opened(second, endless, headers=headers) as two:
                assert two.status_code == 200
                for url in (first, second, third):
                    async with opened(url, endless, headers=headers) as refused:
                        assert refused.status_code == 429, "a third at once"
                        assert json.loads(await refused.aread())["error"]["code"] == "rate_limit_exceeded"
            left = time.monotonic()
            while True:
                async with opened(third, endless, headers=headers) as next_one:
                    if next_one.status_code == 200:
                        break
                assert time.monotonic() - left < 5, "whoever hung up still holds a place"
                await asyncio.sleep(0.05)

    asyncio.run(crowd())


def test_tokens_a_minute_count_what_is_used_and_not_what_was_feared(group: Group) -> None:
    found(group)
    text = key(group, "--tpm", "600")
    one = ask(group.members[0], text, max_tokens=100)
    used = one.json()["usage"]["total_tokens"]
    left = int(one.headers["x-ratelimit-remaining-tokens"])
    assert left < 600 - 100, "the whole answer is claimed at first"
    two = ask(group.members[1], text, max_tokens=1)
    # What was not used of it came back; some more of it drains every second.
    assert int(two.headers["x-ratelimit-remaining-tokens"]) >= 600 - used - two.json()["usage"]["total_tokens"] - 1
    large = ask(group.members[2], text, max_tokens=480)
    assert (large.status_code, code(large)) == (429, "rate_limit_exceeded"), large.text
    assert 0 < int(large.headers["retry-after-ms"]) <= 60_000
    never = ask(group.members[2], text, messages=[{"role": "user", "content": "a long story " * 80}], max_tokens=1)
    if never.status_code == 429:
        assert never.headers["x-should-retry"] == "false" or "retry-after" in never.headers


def test_usage_is_counted_once_and_a_month_that_is_used_up_is_refused(group: Group) -> None:
    found(group)
    text = key(group)
    answers = [ask(group.members[nth % 3], text, max_tokens=5 + nth) for nth in range(9)]
    total = sum(answer.json()["usage"]["total_tokens"] for answer in answers)
    for member in group.members:
        until("all of it is written down", lambda member=member: usage(group, member, text).tokens >= total)
        assert usage(group, member, text) == Usage(9, total)
    member = group.members[0]
    home = group.folder / member.name
    table = cli("keys", "ls", url=member.url, home=home).stdout
    assert "THIS MONTH" in table and str(total) in table, table

    limit = cli("keys", "limit", key_id(text), "--tokens-per-month", str(total + 30), url=member.url, home=home)
    assert limit.returncode == 0 and f"{total + 30} a month" in limit.stdout, limit.stderr
    for other in group.members:
        until("the limit holds", lambda other=other: spent(other, text))
    over = ask(group.members[1], text)
    assert over.headers["x-should-retry"] == "false" and int(over.headers["retry-after"]) > 0
    assert cli("keys", "limit", key_id(text), "--tokens-per-month", "none", url=member.url, home=home).returncode == 0
    until("there is no limit", lambda: ask(group.members[2], text).status_code == 200)
    trail = cli("audit", url=member.url, home=home).stdout
    assert f"change key {key_id(text)}" in trail and "tokens a month" in trail, trail


def spent(member: Coordinator, text: str) -> bool:
    response = ask(member, text)
    if response.status_code == 429:
        assert code(response) == "quota_exceeded", response.text
    return response.status_code == 429


def test_limits_and_usage_outlive_the_leader(group: Group) -> None:
    found(group)
    leader, (first, second) = group.leader(), group.followers()
    text = key(group, "--rpm", "3", "--concurrency", "2")
    began = time.monotonic()
    answers = [ask(member, text) for member in (first, second, first)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert code(ask(second, text)) == "rate_limit_exceeded"
    leader.process.kill()
    total = sum(answer.json()["usage"]["total_tokens"] for answer in answers)
    # One more for each third of a minute, and no bucket anew.
    granted = 3
    for nth in range(8):
        response = ask((first, second)[nth % 2], text)
        if response.status_code == 200:
            granted += 1
            total += response.json()["usage"]["total_tokens"]
        else:
            assert code(response) == "rate_limit_exceeded", response.text
        assert granted <= 3 + (time.monotonic() - began) / 20, "a new leader filled the bucket"
    for member in (first, second):
        until("all of it is written down", lambda member=member: usage(group, member, text).tokens >= total)
        assert usage(group, member, text) == Usage(granted, total)


def test_changes_of_the_group_are_in_the_trail(group: Group) -> None:
    group.found()
    member, third = group.followers()
    home = group.folder / member.name
    shown = json.loads(cli("coordinators", "ls", "--output", "json", url=member.url, home=home).stdout)
    rank = next(entry["replica"] for entry in shown["coordinators"] if entry["address"] == third.address)
    done = cli("coordinators", "lead", str(rank), url=member.url, home=home)
    assert done.returncode == 0, done.stderr
    refused = cli("coordinators", "remove", "99", url=member.url, home=home)
    assert refused.returncode != 0
    trail = cli("audit", url=member.url, home=home).stdout
    assert f"hand the lead to coordinator {rank}" in trail and "remove coordinator 99" in trail, trail
    assert trail.count("begun") == 2 and trail.count("refused") == 1, trail
    assert cli("audit", "--verify", url=member.url, home=home).returncode == 0
