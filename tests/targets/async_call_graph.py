"""Prints, in every leaf of the scenarios of async_parents.py, who awaits it by asyncio.capture_call_graph(),
3.14 and later: a JSON list of [function, line] from the leaf outwards."""

import asyncio
import json

import async_parents

kept = []


def awaiting(graph):
    """The frames of whoever awaits, the first if there are several."""
    if not graph.awaited_by:
        return []
    parent = graph.awaited_by[0]
    return [frame_of(entry.frame) for entry in parent.call_stack] + awaiting(parent)


def frame_of(frame):
    return frame.f_code.co_name, frame.f_lineno


def keep(size):
    frames = []
    graph = asyncio.capture_call_graph()
    for entry in graph.call_stack[1:]:
        frames.append(frame_of(entry.frame))
        if entry.frame.f_code.co_name in ("worker", "failing", "eager_child"):
            break
    kept.append(bytearray(size)); print(json.dumps(frames + awaiting(graph)), flush=True)  # noqa: E702


# Without those where asyncio's graph lacks frames of generators, or takes any of several parents.
SCENARIOS = (
    "by_await", "by_gather", "by_gather_of_gathers", "by_wait", "by_wait_for", "by_timeout", "by_shield",
    "by_group", "three_levels", "forgotten", "raising", "subclass",
)  # fmt: skip

if __name__ == "__main__":
    async_parents.keep = keep
    for number, name in enumerate(SCENARIOS):
        async_parents.run(getattr(async_parents, name), 20_000 + 100 * number)
