"""When who claimed an attempt on another host is taken for dead: its lease, and outages.

Pure functions, as all of :mod:`crystalmath.jobs.life`, which they are a part of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crystalmath.jobs.facts import Claim, Silence

#: While most hosts are silent, it is the file system that is out: so many leases are waited for.
OUTAGE_LEASES = 3


def is_over(claim: Claim) -> bool:
    """Return whether nothing was heard of a claimant for so long that it is lost.

    By then it has ended what it ran: it does that after half of its lease.
    """
    silence = claim.silence
    if silence is None:
        return False
    return silence.for_s >= silence.lease_s * (OUTAGE_LEASES if _is_outage(silence) else 1)


def waits_for(claim: Claim) -> str | None:
    """Return what is waited for where nothing was heard of a claimant for half of its lease."""
    silence = claim.silence
    if silence is None or silence.for_s < silence.lease_s / 2 or is_over(claim):
        return None
    lease = f"{silence.lease_s:g} s"
    if _is_outage(silence):
        return (
            "nothing is heard of most hosts at once, as if their file system were out: waiting for "
            f"up to {OUTAGE_LEASES} leases of {lease}"
        )
    return f"{unheard(claim)}; it is lost when its lease of {lease} is over"


def unheard(claim: Claim) -> str:
    """Say of whom nothing is heard."""
    return f"nothing was heard of its supervisor ({claim.who})"


def _is_outage(silence: Silence) -> bool:
    """Return whether several hosts fell silent at once, and most of those that are listened to."""
    return silence.silent_hosts > 1 and 2 * silence.silent_hosts > silence.hosts
