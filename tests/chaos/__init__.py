"""The fault campaign: what design page's promises are worth when things die, on purpose and against real parts.

    make chaos                                  everything; writes results/YYYY-MM-DD.md; fails where a row is red
    make chaos ARGS="--list"                    what there is
    make chaos ARGS="--only phases --seed 7"    one scenario; its rows replace those of the day's table

Every scenario runs on servers of its own (`world`): PostgreSQL and Valkey that may be killed, `postroom api`
and `postroom worker` as processes, peers in the campaign's own process, which nobody kills, and clients that post
with an Idempotency-Key until they know (`clients`). What became of it is counted from three records that know
nothing of each other (`records`): what HTTP answered, what the peers wrote down before they answered, and what the
ledger says.

| module | holds |
|---|---|
| `registry` | what a scenario and a row are; every module of this package that registers one takes part |
| `world` | servers, processes, and how they die and come back |
| `clients` | applications that write down every answer |
| `records` | the count |
| `report` | the table of the day |
| `phases` | what dies × the phase in which the peer is × `resend`, `hold` |
| `wire` | what a peer can do wrong × the phase |
| `pauses` | workers that stand still, and go on when their lease is over |
| `storm` | kill -9 of anything under thousands of messages, and what a lane's limit is worth then |
| `restarts` | planned restarts under load |
| `resuming` | how soon another worker goes on |
| `proxy` | proxies before PostgreSQL, Redis, the token service and a peer: black hole, delay, refusal, reset, a COMMIT without an answer |
| `infrastructure` | what the faults below have in common |
| `infrastructure_ledger` | PostgreSQL dead, frozen, out of reach, slow, read-only, without connections |
| `infrastructure_disk` | its disk full to the last octet |
| `infrastructure_commits` | commits that happen and are not answered |
| `infrastructure_redis` | Redis flushed, stale, full, absent, behind a black hole, with foreign jobs and pickles |
| `infrastructure_tokens` | no token, no MX record |
| `infrastructure_resolver` | the system's resolver hangs over one name |
| `infrastructure_lanes` | a route down with a thousand waiting, a queue that is full, a poison message |
| `infrastructure_clocks` | clocks wrong by ten minutes, and jumping |
"""
