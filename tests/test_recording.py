"""When operations are recorded: no_grad in threads, tasks, generators and coroutines."""

import asyncio
import contextvars
import gc
import inspect
import threading
import types
import weakref

import pytest
from helpers import child
from hypothesis import given, strategies as st

import minigrad as mg
from minigrad.recording import Block, no_grad_blocks


def records():
    """What is_grad_enabled says, and what an operation does."""
    does = (mg.tensor(1.0, requires_grad=True) * 2).requires_grad
    assert mg.is_grad_enabled() == does
    return does


def in_thread(function):
    """What `function` returns or raises in a new thread."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(outcome(function)))
    thread.start()
    thread.join()
    return outcomes[0]


def outcome(function, *args):
    try:
        return "returned", function(*args)
    except BaseException as error:
        return "raised", repr(error), repr(error.__cause__)


@pytest.fixture(autouse=True)
def nothing_stays_off():
    yield
    assert records()


# Blocks and plain functions


def test_no_grad_as_context_and_decorator():
    with mg.no_grad():
        assert not records()
        with mg.no_grad():
            pass
        assert not records()
    assert records()

    @mg.no_grad()
    def double(x, again):
        return double(x, False) if again else x * 2

    assert not double(mg.tensor(1.0, requires_grad=True), True).requires_grad
    with pytest.raises(ZeroDivisionError), mg.no_grad():
        1 / 0
    assert records()


def test_no_grad_is_per_thread():
    with mg.no_grad():
        assert in_thread(records) == ("returned", True)
        assert not records()


def test_one_no_grad_many_times():
    once = mg.no_grad()
    with once:
        with once:
            with once:
                assert not records()
            assert not records()
        assert not records()
    assert records()

    @once
    def sink(depth):
        assert not records()
        if depth:
            sink(depth - 1)
        assert not records()

    sink(5)
    assert records()


def test_one_no_grad_in_a_context_and_its_copy():
    once = mg.no_grad()

    def in_copy():
        with once:
            assert not records()

    with once:
        contextvars.copy_context().run(in_copy)
        assert not records()


def test_one_no_grad_in_many_threads():
    once, turn, seen = mg.no_grad(), threading.Barrier(4, timeout=60), []

    def work(stay):
        for step in range(4):  # inside from the first of these steps on, until the second
            turn.wait()
            if step == stay[0]:
                once.__enter__()
            if step == stay[1]:
                once.__exit__(None, None, None)
            turn.wait()
            seen.append(records() == (not stay[0] <= step < stay[1]))

    stays = [(0, 3), (1, 2), (2, 3), (3, 4)]
    threads = [threading.Thread(target=work, args=[stay]) for stay in stays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 16


def test_what_cannot_be_decorated():
    class Model:
        pass

    for wrong, got in (Model, "the class Model"), (3, "not 3"):
        with pytest.raises(TypeError, match=got):
            mg.no_grad(wrong)


# Blocks that are left in another order, thread or context


def holder(block=None):
    with block or mg.no_grad():
        yield


LEAVING = {
    "finished": lambda generators: next(generators.pop(), None),
    "closed": lambda generators: generators.pop().close(),
    "deleted": lambda generators: generators.clear(),
    "an error": lambda generators: outcome(generators.pop().throw, KeyError()),
}


@pytest.mark.parametrize("shared", [None, mg.no_grad()], ids=["own", "shared"])
@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_block_is_left_in_another_thread_or_context(leave, shared):
    def enter():
        generators.append(holder(shared))
        next(generators[0])
        return records()

    def leave_it():
        before = records()
        leave(generators)
        return before, records()

    def inside():
        return [enter(), in_thread(leave_it)[1], records()]

    generators = []
    assert inside() == [False, (True, True), True]
    assert in_thread(lambda: [enter()]) == ("returned", [False])
    assert leave_it() == (True, True)
    assert contextvars.copy_context().run(enter) is False
    assert leave_it() == (True, True)
    assert enter() is False
    copy = contextvars.copy_context()
    assert copy.run(leave_it) == (False, True)
    assert records()
    with mg.no_grad():
        inside = enter(), in_thread(leave_it)[1], records()
        assert inside == (False, (True, True), False)


@given(st.data())
def test_any_order_in_any_contexts(data):
    """Compare each context with a set of the blocks that keep recording off in it."""
    contexts, entered = [(contextvars.copy_context(), set())], []
    for _ in range(data.draw(st.integers(1, 25), "steps")):
        context, off = data.draw(st.sampled_from(contexts), "in")
        action = data.draw(st.sampled_from(["enter", "copy", "finish", "close"]))
        if action == "enter":
            block = holder()
            context.run(next, block)
            off.add(block)
            entered.append((block, off))
            # One more is in place of all blocks that were left where they were entered.
            assert len(context[no_grad_blocks]) <= len(entered) + 1
        elif action == "copy":
            contexts.append((context.copy(), set(off)))
        elif entered:
            block, home = entered.pop(data.draw(st.integers(0, len(entered) - 1), "which"))
            context.run(lambda: block.close() if action == "close" else next(block, None))
            for _, its in [(context, off)] if action == "finish" and home is off else contexts:
                its.discard(block)
        for context, off in contexts:
            assert context.run(records) == (not off)


def blocks_alive():
    gc.collect()
    return sum(type(thing) is Block for thing in gc.get_objects())


def test_blocks_do_not_pile_up():
    before = blocks_alive()

    def crossed(leave):
        older = holder()
        next(older)
        for _ in range(50):
            younger = holder()
            next(younger)
            leave(older)
            older = younger
        assert blocks_alive() <= before + 3
        leave(older)

    def in_copies(depth):
        with mg.no_grad():
            if depth:
                contextvars.copy_context().run(in_copies, depth - 1)

    def in_later_copies():
        """Like a function that makes the event loop call it again later."""
        context = contextvars.copy_context()
        for _ in range(50):
            context = context.run(later_copy)
        assert blocks_alive() <= before + 3

    def later_copy():
        with mg.no_grad():
            return contextvars.copy_context()

    crossed(lambda generator: next(generator, None))
    crossed(lambda generator: in_thread(generator.close))
    crossed(lambda generator: in_thread(lambda: next(generator, None)))
    in_copies(10)
    in_later_copies()
    for _ in range(50):
        with mg.no_grad():
            pass
    assert blocks_alive() == before


def test_the_garbage_collector_may_come_at_any_time():
    """It may end generators even while this context enters or leaves a block."""

    def in_a_cycle():
        generator = holder()
        next(generator)
        cycle = [generator]
        cycle.append(cycle)

    thresholds = gc.get_threshold()
    gc.freeze()  # to look at few objects only
    try:
        for wait in range(1, 60):
            gc.collect()
            in_a_cycle()
            gc.set_threshold(wait + gc.get_count()[0])
            with mg.no_grad():
                assert not mg.is_grad_enabled()
            gc.set_threshold(*thresholds)
            gc.collect()
            assert records()
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


# Decorated generators and coroutines


@types.coroutine
def suspend(value):
    return (yield value)


def generator_body(see):
    """It yields what it is sent, catches a KeyError, and may refuse to be closed."""
    got = None
    try:
        for _ in range(4):
            see()
            try:
                got = yield "got", got
            except KeyError as error:
                got = repr(error)
        return "done", got
    except LookupError as error:
        raise OSError("raised inside") from error
    except GeneratorExit:
        see()
        if got == "stay":
            yield "not now"
        elif got == "go":
            return "gone"
        raise
    finally:
        see()


async def coroutine_body(see):
    got = None
    try:
        for _ in range(4):
            see()
            try:
                got = await suspend(("got", got))
            except KeyError as error:
                got = repr(error)
        return "done", got
    except LookupError as error:
        raise OSError("raised inside") from error
    except GeneratorExit:
        see()
        raise  # when it is thrown, `await` makes a close of it, and loses what that answers
    finally:
        see()


async def async_generator_body(see):
    got = None
    try:
        for _ in range(4):
            see()
            try:
                got = yield "got", got
                see()
                got = await suspend(("suspended", got)) or got
            except KeyError as error:
                got = repr(error)
                await suspend("caught")
    except LookupError as error:
        raise OSError("raised inside") from error
    except GeneratorExit:
        see()
        if got == "stay":
            yield "not now"
        elif got == "go":
            return
        await suspend("closing")
        raise
    finally:
        see()
        await suspend("ending")
        see()


GIVEN = [
    ("send", 7), ("send", "stay"), ("send", "go"), ("throw", KeyError), ("throw", IndexError),
    ("throw", StopIteration), ("throw", StopAsyncIteration), ("throw", GeneratorExit), ("close",),
]  # fmt: skip
END = [("throw", OSError)] * 3  # what is left suspended makes Python complain
scripts = st.lists(st.sampled_from(GIVEN), max_size=6).map(
    lambda script: [("send", None), *script, *END]
)


def resumed(script, made):
    """What a generator or coroutine answers."""
    for action, *what in script:
        yield outcome(getattr(made, action), *what)
        assert records()


def resumed_asynchronously(script, made):
    """What an asynchronous generator answers, and what each step answers when it is suspended."""
    for action, *what in script:
        step = getattr(made, "a" + action)(*what)
        answer, times = None, 0
        while not answer or answer[0] == "returned":  # else it has raised StopIteration
            times += 1
            late = action == "send" and times == 3
            answer = outcome(step.throw, KeyError) if late else outcome(step.send, None)
            yield answer
            assert records()


KINDS = {
    "generator": (generator_body, resumed, inspect.isgeneratorfunction),
    "coroutine": (coroutine_body, resumed, inspect.iscoroutinefunction),
    "async generator": (async_generator_body, resumed_asynchronously, inspect.isasyncgenfunction),
}
of_each_kind = pytest.mark.parametrize("body, answers, is_kind", KINDS.values(), ids=KINDS.keys())


# Python itself complains about an asynchronous generator that refuses to be closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@of_each_kind
@given(script=scripts)
def test_what_is_decorated_behaves_as_before_and_records_nothing(body, answers, is_kind, script):
    inside = []
    plain = [*answers(script, body(lambda: None))]
    decorated = [*answers(script, mg.no_grad(body)(lambda: inside.append(records())))]
    assert decorated == plain
    assert inside and not any(inside)


@of_each_kind
def test_what_is_decorated_keeps_its_kind_and_name(body, answers, is_kind):
    for decorated in mg.no_grad(body), mg.no_grad()(body):
        assert is_kind(decorated) and decorated is not body
        assert decorated.__name__ == body.__name__ and decorated.__doc__ == body.__doc__


@of_each_kind
def test_what_is_decorated_keeps_nothing_alive_by_a_cycle(body, answers, is_kind):
    class Heavy:
        def __call__(self):
            pass

    gc.collect()
    gc.disable()
    try:
        for last in ("throw", IndexError), ("close",), ("send", 7):
            heavy = Heavy()
            kept = weakref.ref(heavy)
            [*answers([("send", None), ("throw", KeyError), last, *END], mg.no_grad(body)(heavy))]
            del heavy
            assert kept() is None
    finally:
        gc.enable()


# asyncio


def test_tasks_do_not_disturb_each_other():
    async def blocked(steps):
        with mg.no_grad():
            for _ in range(steps):
                await asyncio.sleep(0)
                assert not records()
        await asyncio.sleep(0)
        return records()

    @mg.no_grad
    async def decorated(steps):
        for _ in range(steps):
            await asyncio.sleep(0)
            assert not records()
        return not records()

    async def plain(steps):
        for _ in range(steps):
            await asyncio.sleep(0)
            assert records()
        return records()

    async def main():
        kinds = [work(steps) for work in (blocked, decorated, plain) for steps in (1, 2, 5)]
        assert all(await asyncio.gather(*kinds)) and records()

    asyncio.run(main())


def test_a_task_that_is_started_inside_stays_off():
    async def look():
        seen = [records()]
        await asyncio.sleep(0)
        with mg.no_grad():
            pass
        return [*seen, records()]

    async def main():
        with mg.no_grad():
            early = asyncio.create_task(look())
            await asyncio.sleep(0)
            late = asyncio.create_task(look())
        assert records()
        assert await early == await late == [False, False]
        assert await asyncio.create_task(look()) == [True, True]

    asyncio.run(main())


@pytest.mark.parametrize("kept", [True, False])
def test_the_event_loop_closes_an_async_generator_once(kept):
    complaints, inside, generators = [], [], []

    @mg.no_grad()
    async def numbers():
        try:
            while True:
                yield 1
        finally:
            inside.append(records())
            await asyncio.sleep(0)
            inside.append(records())

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        generator = numbers()
        async for _ in generator:
            break
        if kept:
            generators.append(generator)
        else:
            del generator
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert inside == [False, False] and complaints == []


COLLECTED = """
import gc, minigrad as mg

@mg.no_grad
def numbers():
    yield 1

class Cycle:
    pass

def make_garbage():
    cycle = Cycle()
    cycle.itself, cycle.generator = cycle, numbers()
    next(cycle.generator)

gc.freeze()  # spares the collections below all that the imports have made
block = mg.no_grad()
for _ in range(10):
    for allocations in range(1, 30):
        gc.disable()
        gc.collect()
        make_garbage()
        gc.set_threshold(gc.get_count()[0] + allocations, 1000, 1000)
        gc.enable()
        with block, block, block, block:
            pass
gc.disable()
assert mg.is_grad_enabled()
"""


def test_a_generator_may_be_collected_while_a_block_is_entered():
    """Setting a ContextVar a second time at that moment makes Python 3.11 crash."""
    child(code=COLLECTED)
