"""Lanes and drains: from a due delivery to a verdict.

worker    start, sweep, stop; the two things that arq and Redis are for
bell      how a drain hears at once that something is due
drain     one lane in one worker: claim, carry, wait
seats     the connections that a lane may have
keeper    the heartbeat of leases and seats
attempt   the story of one attempt
verdict   what a reply or a fault means for us: the only place that says it
schedule  when to try again
"""

from service.without import without

with without("jwt"):
    import redis.asyncio  # noqa: F401
