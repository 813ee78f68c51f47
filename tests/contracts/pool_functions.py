"""What the pools' suite has run: each function twice, plain and as a coroutine function."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from backwater_tornado.errors import SoftTimeLimitExceeded
from backwater_tornado.tasks.request import Reject, TaskContext, current_task
from backwater_tornado.tasks.task import expose


@expose
def plain_add(x: int, y: int = 0) -> int:
    return x + y


@expose
async def async_add(x: int, y: int = 0) -> int:
    return x + y


ERRORS = {kind.__name__: kind for kind in (ValueError, SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit)}


@expose
def plain_raise(kind: str) -> None:
    raise ERRORS[kind]("as told")


@expose
async def async_raise(kind: str) -> None:
    plain_raise(kind)


@expose(bind=True)
def plain_retry(task: TaskContext) -> None:
    task.retry(ValueError("again"), countdown=5)


@expose(bind=True)
async def async_retry(task: TaskContext) -> None:
    task.retry(ValueError("again"), countdown=5)


@expose
def plain_reject() -> None:
    raise Reject("bad data")


@expose
async def async_reject() -> None:
    raise Reject("bad data")


@expose(bind=True)
def plain_tell(task: TaskContext, count: int) -> str:
    return _tell(task, count)


@expose(bind=True)
async def async_tell(task: TaskContext, count: int) -> str:
    return _tell(task, count)


def _tell(task: TaskContext, count: int) -> str:
    for number in range(count):
        task.progress(number)
    return "told"


@expose
def plain_spin() -> None:
    """Only Python code, and no end."""
    _begin()
    while True:
        pass


@expose
async def async_spin() -> None:
    _begin()
    await asyncio.Event().wait()


@expose
def plain_tidy() -> str:
    try:
        plain_spin()
    except SoftTimeLimitExceeded:
        return "tidied up"
    return "never"


@expose
async def async_tidy() -> str:
    try:
        await async_spin()
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
        return "tidied up"
    return "never"


@expose
def plain_save() -> str:
    """Gives something in spite of being stopped."""
    try:
        plain_spin()
    except BaseException:
        return "saved"
    return "never"


@expose
async def async_save() -> str:
    try:
        await async_spin()
    except BaseException:
        return "saved"
    return "never"


@expose
def plain_save_twice() -> str:
    """Goes on after its soft limit."""
    try:
        plain_spin()
    except SoftTimeLimitExceeded:
        return plain_save()
    return "never"


@expose
async def async_save_twice() -> str:
    try:
        await async_spin()
    except SoftTimeLimitExceeded:
        return await async_save()
    return "never"


@expose
def plain_meet(port: int) -> str:
    """Wait until the test lets it go; in C, where nothing interrupts it."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        return "met" if connection.recv(1) == b"" else "never"


@expose
async def async_meet(port: int) -> str:
    """Wait until the test lets it go, and for nothing else."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        try:
            await reader.read(1)
            writer.close()
            return "met"
        except asyncio.CancelledError:
            continue


@expose
def plain_sleep() -> None:
    _begin()
    time.sleep(3600)


@expose
async def async_sleep() -> None:
    _begin()
    await asyncio.sleep(3600)


# For processes alone --------------------------------------------------------------------------------------------------


@expose
def plain_pid() -> int:
    return os.getpid()


@expose
def plain_fork() -> int:
    child = os.fork()
    if child == 0:
        sys.exit(3)
    os.waitpid(child, 0)
    return os.getpid()


@expose
def plain_exit(code: int) -> None:
    os._exit(code)


@expose
def plain_echo(value: bytes) -> bytes:
    task: Any = current_task()
    task.progress(value)
    return value


@expose
def plain_log(text: str) -> None:
    logging.getLogger("tests").info(text)


@expose
def plain_spawn() -> int:
    """Waits for a program that never ends."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as program:
        task: Any = current_task()
        task.progress(program.pid)
        return program.wait()


@expose
def plain_linger() -> int:
    """Leaves a thread behind that keeps its process from ending."""
    threading.Thread(target=threading.Event().wait).start()
    return os.getpid()


def _begin() -> None:
    task: Any = current_task()
    task.progress("begun")
