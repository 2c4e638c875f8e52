"""What Triton does once a process before its first kernel, begun early: hashing itself, and compiling its driver."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from attngen.op.triton_key import KNOWN, remember_triton_key


@cache
def begin() -> tuple[Future[None], ...]:
    """Start, in threads that wait for the disk and for a C compiler most of the time.

    Called first thing in a first call, so that it runs while a config is looked up and its kernel is written; not when
    a spec is loaded, as another library may start Triton at the same time then.
    """
    import triton

    if not triton.__version__.startswith(KNOWN):
        return ()
    threads = ThreadPoolExecutor(2, thread_name_prefix="attngen-triton")
    started = (threads.submit(remember_triton_key), threads.submit(_driver))
    threads.shutdown(wait=False)
    return started


def wait() -> None:
    """Until Triton is ready. Where its driver cannot be made, Triton says so itself when it is used."""
    for part in begin():
        part.exception()


def _driver() -> None:
    from triton.runtime import driver

    driver.active  # noqa: B018  # made, with gcc, when it is first asked for
