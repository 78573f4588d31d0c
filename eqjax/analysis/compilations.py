"""How many programs XLA compiles."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import monitoring


@dataclasses.dataclass
class Compilations:
    """How many programs XLA compiled, and for how many seconds."""

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Count the programs compiled inside a `with` statement, by JAX's own monitoring.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> with count_compilations() as compiled:
    ...     _ = jax.jit(lambda x: x + 1)(jnp.zeros(3))
    >>> compiled.count >= 1
    True
    """
    total = Compilations()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            total.count += 1
            total.seconds += duration_secs

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield total
    finally:
        monitoring.unregister_event_duration_listener(listen)


def run_once(fn: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of arrays, compiled in the least time: it runs but once.

    >>> run_once(lambda x: x + 1, 2.0).item()
    3.0
    """
    program = jax.jit(fn).lower(*arguments)
    options: Any = {"xla_backend_optimization_level": 0}
    return program.compile(options)(*arguments)
