"""The handlers of ``jobs.subscribe``: changes come by themselves, as notifications.

A subscription is a place in the event log, not a queue: a client that reads slowly is told later,
from the log, and costs no memory.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, cast

from crystalmath.models.answers import Answer, Change, Event, Subscribed
from crystalmath.models.fields import Limits
from crystalmath.server.handlers.events import (
    WantedParams,
    event_documents,
    listening,
    read_wanted,
)
from crystalmath.server.pools import in_pool, in_slices
from crystalmath.server.rpc.declare import NoParams, method

if TYPE_CHECKING:
    from crystalmath.server.rpc.session import Session
    from crystalmath.service.event_feed import Wanted

#: The name of the notification.
_CHANGED = "jobs.changed"

#: How many events are read from the log at once.
_AT_ONCE = 200

#: How long is waited for an event before the log is asked again, in seconds.
_WAIT_S = 600

#: No event has so large a number.
_NEVER = 2**53


class SubscribeParams(WantedParams, total=False):
    """The parameters of ``jobs.subscribe``."""

    after: Annotated[
        int,
        Limits(minimum=0, maximum=_NEVER),
        "tell events whose seq is larger; default: what happens from now on",
    ]


@method(
    "jobs.subscribe",
    refused={"seq": None},
    of_session=True,
)
async def handle_jobs_subscribe(session: Session, params: SubscribeParams) -> Subscribed:
    """Be told of each change of jobs, all or those asked for, until the connection ends.

    The answer's ``seq`` is where the subscription begins. What comes after it arrives as
    notifications ``jobs.changed`` with ``{seq, job_id, at, from, status, reason}``, in the order of
    the growing ``seq``. With ``job`` each has the job as jobs.list tells it, as it is by then. All
    filters must agree. Who subscribes again after a reconnect, ``after`` the last ``seq`` seen,
    misses nothing and is told nothing twice. A second subscription takes the place of the first.
    """
    after, wanted = params.pop("after", None), read_wanted(params)
    if after is None:
        _, after = await in_pool("asking", session.controller.events, _NEVER, None, 1)
    session.in_background(_tell(session, after, wanted, asyncio.current_task()))
    return {"seq": after, "error": None}


@method("jobs.unsubscribe", of_session=True)
async def handle_jobs_unsubscribe(session: Session, params: NoParams) -> Answer:
    """End the subscription; without one nothing happens."""
    del params
    session.in_background(None)
    return {"error": None}


async def _tell(
    session: Session, after: int, wanted: Wanted, request: asyncio.Task[Any] | None
) -> None:
    if request is not None:  # its answer goes first
        await asyncio.wait([request])
    service = session.controller
    async with listening(service, None, jobs=wanted.needs_jobs) as subscriber:
        while True:
            events = event_documents(service, after, _AT_ONCE, wanted)
            documents, last = await in_slices("computing", events)
            for document in documents:
                await session.notify(_CHANGED, _change(document))
            if last <= after:  # there is no more
                await subscriber.wait(_WAIT_S)
            after = max(after, last)


def _change(event: Event) -> Change:
    """Describe an event by the name that a job's state has."""
    told = {"status" if name == "to" else name: value for name, value in event.items()}
    return cast("Change", told)
