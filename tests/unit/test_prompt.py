"""Coroutines that go on as soon as what they wait for is there."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from interlock.core.prompt import Prompt, go


async def test_who_waits_goes_on_before_settle_returns() -> None:
    loop, said = asyncio.get_running_loop(), []
    first, second = Prompt[int](loop), Prompt[int](loop)

    async def work() -> None:
        said.append(0)
        said.append(await first)
        try:
            await second
        except KeyError as error:
            said.append(error.args[0])

    go(loop, work())
    assert said == [0]
    first.settle(1)
    assert said == [0, 1]
    second.fail(KeyError("lost"))
    assert said == [0, 1, "lost"]


async def test_what_is_settled_already_is_not_waited_for() -> None:
    loop, said = asyncio.get_running_loop(), []
    there = Prompt[str](loop)
    there.settle("there")

    async def work() -> None:
        said.append(await there)

    go(loop, work())
    assert said == ["there"]


async def test_it_waits_for_what_is_asyncios_too() -> None:
    loop = asyncio.get_running_loop()
    end = Prompt[list[str]](loop)
    event, plain = asyncio.Event(), loop.create_future()

    async def work() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await event.wait()
        end.settle([await plain, await asyncio.to_thread(str, 1)])

    go(loop, work())
    event.set()
    plain.set_result("plain")
    assert await end == ["plain", "1"], "and a task of asyncio waits for it"


async def test_an_error_of_who_waits_is_not_one_of_who_settles(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    there, called_off = Prompt[None](loop), loop.create_future()

    async def work() -> None:
        await there
        raise KeyError("mine")

    async def wait() -> None:
        await called_off

    go(loop, work())
    go(loop, wait())
    with caplog.at_level(logging.ERROR):
        there.settle(None)
        called_off.cancel()
        await asyncio.sleep(0)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError]


async def test_nothing_is_left_for_the_collector() -> None:
    """Servers look for cycles seldom: a request must not be one."""
    loop = asyncio.get_running_loop()
    there = Prompt[None](loop)

    class Kept:
        pass

    async def work(kept: Kept) -> None:
        await there
        del kept

    kept = Kept()
    seen = weakref.ref(kept)
    go(loop, work(kept))
    del kept
    gc.disable()
    try:
        assert seen() is not None
        there.settle(None)
        assert seen() is None
    finally:
        gc.enable()
