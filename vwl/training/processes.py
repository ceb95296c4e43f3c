"""Starting processes: they do not run the caller's script again, leave signals to their parent, and end with it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.context import ForkServerContext


def forkserver() -> ForkServerContext:
    """Return how processes start: from a server that has imported what trainings need, so that each takes milliseconds and shares memory.

    A fork of this process would inherit the locks of its threads.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["vwl.training.build"])
    return context


@contextmanager
def without_main_module() -> Iterator[None]:
    """Start processes that do not import the caller's script, which would run it again where it has no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if vars(main).get(name) is not None}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


@contextmanager
def signals_left_to_parent() -> Iterator[None]:
    """Start processes that neither Ctrl-C nor SIGTERM reaches, from their first instruction: they inherit what this thread blocks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process when its parent ends, also one that was killed and could not end it."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
