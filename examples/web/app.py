"""The web application. Run it with one process, which owns the store:

uvicorn examples.web.app:app

What an agent has answered survives `kill -9` of the server. A request may be repeated with the same `Idempotency-Key`: it takes effect once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from examples.web.agents import Poll
from jidosystem import CallTimeout, IdempotencyConflict, InvalidKey, JidoError, Platform, Rejected


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Platform]]:
    """The platform lives as long as the application serves."""
    async with Platform(os.environ.get("VOTES_STORE", "sqlite:///votes.db"), agents=[Poll]) as platform:
        yield {"platform": platform}


def find_poll(name: str, request: Request) -> Poll:
    """The poll that a path names: a reference, which costs nothing and is typed as `Poll`."""
    platform: Platform = request.state.platform
    return platform.agent(Poll, name)


ThePoll = Annotated[Poll, Depends(find_poll)]
Once = Annotated[str | None, Header(alias="Idempotency-Key", max_length=512)]


class Vote(BaseModel):
    """What a voter sends."""

    voter: str
    choice: str


app = FastAPI(title="Votes", lifespan=lifespan)


@app.post("/polls/{name}/votes", status_code=201)
async def vote(given: Vote, poll: ThePoll, request: Request, once: Once = None) -> dict[str, int]:
    """Vote, and see how it stands."""
    platform: Platform = request.state.platform
    return await platform.call(poll.vote, given.voter, given.choice, timeout=5, idempotency_key=once)


@app.get("/polls/{name}")
async def read(poll: ThePoll) -> dict[str, int]:
    """See how it stands."""
    return await poll.read()


@app.post("/polls/{name}/close")
async def close(poll: ThePoll) -> dict[str, int]:
    """Close a poll."""
    return await poll.close()


@app.exception_handler(JidoError)
async def refused(request: Request, error: Exception) -> JSONResponse:
    """Errors of the platform as HTTP: whose fault it is decides the status."""
    assert isinstance(error, JidoError)
    if isinstance(error, Rejected | IdempotencyConflict):
        status = 409
    elif isinstance(error, InvalidKey):
        status = 404
    elif isinstance(error, CallTimeout):  # it may still take effect: repeat it with its Idempotency-Key
        status = 504
    else:
        status = 503
    return JSONResponse({"error": error.code, "message": str(error)}, status_code=status)
