"""Names of the contract that later parts of the platform bring: asking for one says so, instead of denying that it exists."""

from __future__ import annotations

from ..core.errors import NotYetAvailable
from ..runtime.blocks import LATER

_WORKFLOWS = "workflows"
_CHOREOGRAPHIES = "choreographies"
_SECURITY = "the security layer"
_ELECTIONS = "elections, locks and barriers"

NAMES = {
    "Capabilities": LATER["capabilities"], "Rate": LATER["capabilities"], "Criteria": LATER["capabilities"], "NoMatch": LATER["capabilities"],
    "Match": LATER["capabilities"], "match_capabilities": LATER["capabilities"],
    "Resources": LATER["resources"], "ResourcesExhausted": LATER["resources"], "PlacementStrategy": LATER["resources"],
    "Scaling": LATER["scaling"], "Observability": LATER["observability"], "Tracing": LATER["observability"], "Logging": LATER["observability"],
    "Log": "append-only fields",
    "Capability": _SECURITY, "Unauthorized": _SECURITY,
    "Workflow": _WORKFLOWS, "WorkflowFailed": _WORKFLOWS, "Participant": _WORKFLOWS, "sequence": _WORKFLOWS, "parallel": _WORKFLOWS,
    "conditional": _WORKFLOWS, "step": _WORKFLOWS, "on_error": _WORKFLOWS, "on_timeout": _WORKFLOWS, "for_each": _WORKFLOWS,
    "wait_for": _WORKFLOWS, "sleep": _WORKFLOWS, "Choreography": _CHOREOGRAPHIES,
}  # fmt: skip
"""What `from jidosystem import …` will give."""

ROOMS = {
    "workflows": _WORKFLOWS, "choreographies": _CHOREOGRAPHIES, "discovery": LATER["capabilities"], "pools": "pools", "cache": "the cache",
    "queues": "work queues", "security": _SECURITY, "cluster": _ELECTIONS, "migration": "live migration", "canary": "canary releases",
    "features": "feature flags", "chaos": "fault injection",
}  # fmt: skip
"""What a `Platform` will offer as attributes."""


def not_yet(name: str, part: str) -> NotYetAvailable:
    """The error for a name of the contract that isn't here yet."""
    return NotYetAvailable(f"{name} comes with {part}, which this release doesn't have; leave it out for now")
