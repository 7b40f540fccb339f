"""Deadlines of asynchronous blocks behave as `asyncio.timeout` does."""

import asyncio

import pytest

from batuta_cli.serve.deadline import Deadline


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_block_that_takes_longer_ends_with_a_timeout() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), Deadline(0.001):
            await forever()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0  # the task goes on as if nothing had happened

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_deadline_in_the_past_ends_the_block_at_its_first_wait(seconds: float) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError), Deadline(seconds):
            await forever()

    asyncio.run(main())


def test_a_block_that_is_done_in_time_is_left_alone() -> None:
    async def main() -> str:
        with Deadline(60):
            await asyncio.sleep(0)
        return "done"

    assert asyncio.run(main()) == "done"


def test_an_error_of_the_block_is_passed_on() -> None:
    async def main() -> None:
        with Deadline(60):
            raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        asyncio.run(main())


def test_the_cancellation_by_another_stays_a_cancellation() -> None:
    async def inner(begun: asyncio.Event) -> None:
        with Deadline(60):
            begun.set()
            await forever()

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(inner(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_of_two_nested_deadlines_the_one_that_passed_is_the_one_that_raises() -> None:
    async def main() -> None:
        with Deadline(60), pytest.raises(TimeoutError), Deadline(0.001):
            await forever()
        with pytest.raises(TimeoutError), Deadline(0.001), Deadline(60):
            await forever()

    asyncio.run(main())


def test_it_needs_a_task() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        raised: asyncio.Future[BaseException | None] = loop.create_future()

        def outside() -> None:
            try:
                Deadline(1).__enter__()
            except RuntimeError as error:
                raised.set_result(error)

        loop.call_soon(outside)
        assert "inside a task" in str(await raised)

    asyncio.run(main())
