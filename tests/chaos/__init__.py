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
"""
