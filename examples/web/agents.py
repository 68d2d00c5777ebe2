"""Polls: each is an agent, whose votes are on disk before the voter gets an answer."""

from __future__ import annotations

from jidosystem import Agent, Rejected, action, field


class Poll(Agent):
    """A question's votes: one for each voter."""

    votes: dict[str, str] = field(default_factory=dict)
    closed: bool = False

    @action
    async def vote(self, voter: str, choice: str) -> dict[str, int]:
        """Count a vote and return the counts; `Rejected` for a second vote, and once the poll is closed."""
        if self.closed:
            raise Rejected("the poll is closed")
        if voter in self.votes:
            raise Rejected(f"{voter} has voted already")
        self.votes[voter] = choice
        self.emit("poll.voted", {"poll": self.key, "choice": choice})
        return self._counts()

    @action
    async def close(self) -> dict[str, int]:
        """Take no more votes."""
        self.closed = True
        return self._counts()

    @action(readonly=True)
    async def read(self) -> dict[str, int]:
        """The counts."""
        return self._counts()

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for choice in self.votes.values():
            counts[choice] = counts.get(choice, 0) + 1
        return counts
