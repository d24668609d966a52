"""Whether operations are recorded, and `no_grad`, which turns recording off.

Each thread and each asynchronous task has its own context, a set of variables that no other one
sees (see Python's ``contextvars``). One of them holds the no_grad blocks that the context is in.
If there are none, operations are recorded.

A generator may enter a block in one thread and leave it in another, perhaps because the garbage
collector ends it there. The variable of the first thread is then out of reach, but the block is
not: it is marked as cancelled, which both threads see.

A decorated function is simpler. While it runs, or while a decorated generator or coroutine runs
one step, nothing else runs in its thread, so a count for each thread is enough. (The variable
would not do: the garbage collector may end a generator while the variable is being set, and in
Python 3.11 setting it then corrupts the context.)
"""

import functools
import inspect
import sys
import threading
import types
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar, Token
from typing import Any, TypeVar, cast, overload

F = TypeVar("F", bound=Callable[..., Any])


class Block:
    """One run through a ``with no_grad():``."""

    __slots__ = ("left", "cancelled")

    def __init__(self, left: bool = False):
        self.left = left  # where it was entered; in tasks started inside, recording stays off
        self.cancelled = False  # if True, the block no longer counts in any context


no_grad_blocks: ContextVar[tuple[Block, ...]] = ContextVar("no_grad_blocks", default=())
blocks_here = no_grad_blocks.get  # looked up once, since each operation calls it


class Thread(threading.local):
    """How many decorated functions this thread is in."""

    depth = 0


thread = Thread()
LEFT = Block(left=True)  # in place of all blocks that a task has inherited, which nobody cancels


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread (or asynchronous task)."""
    if thread.depth:
        return False
    for block in blocks_here():  # not `all`, which is slower for one block
        if not block.cancelled:
            return False
    return True


class NoGrad:
    """What ``no_grad()`` returns. It can be used many times, nested, and in several threads."""

    def __init__(self) -> None:
        self._tokens: dict[Block, Token[tuple[Block, ...]]] = {}  # of the blocks not yet left

    def __enter__(self) -> None:
        block, blocks = Block(), blocks_here()
        # LEFT keeps tasks that start tasks inside a block from inheriting more and more.
        before = dict.fromkeys([LEFT if b.left else b for b in blocks if not b.cancelled])
        self._tokens[block] = no_grad_blocks.set((*before, block))

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        blocks = blocks_here()
        for block in reversed(blocks):
            if token := self._tokens.pop(block, None):
                break
        else:
            block, token = self._tokens.popitem()
        if error is GeneratorExit:
            # The garbage collector may be ending a generator while this very context is setting
            # the variable, so leave the variable alone. The next block drops this one.
            block.cancelled = True
            return
        try:
            no_grad_blocks.reset(token)  # shows whether the block was entered in this context
        except ValueError:
            block.cancelled = True
        else:
            block.left = True
            # Not the blocks from before entering: blocks may be left in any order.
            no_grad_blocks.set(tuple([b for b in blocks if b is not block and not b.cancelled]))

    def __call__(self, function: F) -> F:
        if inspect.isclass(function) or not callable(function):
            got = f"the class {function.__name__}" if inspect.isclass(function) else repr(function)
            raise TypeError(f"no_grad decorates a function or a method, not {got}")

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return _off(function, *args, **kwargs)

        if inspect.isgeneratorfunction(function):
            wrapper = _generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapper = _coroutine(function)
        elif inspect.isasyncgenfunction(function):
            wrapper = _async_generator(function)
        return cast(F, functools.wraps(function)(wrapper))


def _off(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function with recording off."""
    thread.depth += 1
    try:
        return function(*args, **kwargs)
    finally:
        thread.depth -= 1
        del function, args, kwargs  # else an error, its traceback and this frame make a cycle


def _generator(function: Any) -> Any:
    """Recording is off while the generator runs; at a ``yield``, the caller records as before."""

    def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        try:
            item = _off(inner.send, None)
            while True:
                try:
                    sent = yield item
                except BaseException as error:  # including GeneratorExit, which closes it
                    item = _off(inner.throw, error)
                else:
                    item = _off(inner.send, sent)
        except StopIteration as end:
            return end.value
        finally:
            del args, inner  # else `athrow`, its error and the error's traceback make a cycle

    return generator


# For `await`: a coroutine takes the same steps as a generator.
_steps = types.coroutine(_generator(lambda coroutine: coroutine))


def _coroutine(function: Any) -> Any:
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return await _steps(function(*args, **kwargs))

    return coroutine


def _async_generator(function: Any) -> Any:
    async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        # An event loop closes unfinished generators: let it see only this one, not the inner one.
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, lambda _: None)
        first = inner.asend(None)
        sys.set_asyncgen_hooks(*hooks)
        try:
            item = await _steps(first)
            while True:
                try:
                    sent = yield item
                except BaseException as error:
                    item = await _steps(inner.athrow(error))
                else:
                    item = await _steps(inner.asend(sent))
        except StopAsyncIteration:
            return

    return async_generator


@overload
def no_grad(function: None = None) -> NoGrad: ...
@overload
def no_grad(function: F) -> F: ...
def no_grad(function: F | None = None) -> NoGrad | F:
    """Record nothing in this thread (or task): ``with no_grad():`` or ``@no_grad()``.

    Inside, results need no gradient, and parameters may be changed in place. Updates belong here:
    recorded, they would become part of the graph of the next step (see `minigrad.optim`).
    ``@no_grad`` is the same as ``@no_grad()``.

    A decorated generator or ``async def`` records nothing while it runs. While it is suspended,
    its caller records as before. With ``with no_grad():`` around a ``yield``, recording is off
    for the caller too, until the generator leaves the block, in whichever thread that happens.

    In an asynchronous task that is started inside, recording is off, even after the block has been
    left. The same holds for any other copy of the context, such as that of ``asyncio.to_thread``.
    A thread that is started inside records.

    Raises
    ------
    TypeError
        If ``function`` is not a function or a method.
    """
    return NoGrad() if function is None else NoGrad()(function)
