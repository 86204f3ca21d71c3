"""The durable queue: a SQLite database, and a spool file beside it for each large content.

A message has one or more envelopes, each with the recipients that go the same way.  An envelope is in one of these
states until it leaves; with its last envelope a message leaves.  Each move is one transaction.

| state           | what it means          | moved by                   | to                                   |
| --------------- | ---------------------- | -------------------------- | ------------------------------------ |
| (not there)     | was never acknowledged | `accept`                   | queued, or held by its route         |
| queued          | tried once it is due   | `settle`, attempt deferred | queued, due later; or held           |
|                 |                        | `settle`, none are left    | gone; DSNs are accepted with it      |
|                 |                        | `operator.hold`            | held                                 |
|                 |                        | `operator.retry`           | queued, due now                      |
|                 |                        | `operator.bounce`          | queued, bounced                      |
|                 |                        | `reroute`, `split`         | queued, at another next hop          |
|                 |                        | `repair.set_aside`         | gone; files in `damaged/`            |
| held            | waits for the operator | `operator.release`         | queued, due now, past `hold` routes  |
|                 |                        | `operator.redirect`        | gone; others of the message in place |
|                 |                        | `operator.bounce`          | queued, bounced                      |
| queued, bounced | the next attempt fails | `settle`                   | gone; its DSN is accepted            |
|                 | all recipients untried |                            |                                      |
| any             |                        | `remove`                   | gone, nobody is told                 |

An attempt is no state: `claim` reads an envelope and changes nothing, the scheduler alone knows what is in flight.  So
the operator's verbs need not wait for it: what `settle` reports of an envelope that is held or bounced by then, or
gone, changes as much as its docstring says.

What a crash leaves, and who cleans it up:

| crash                                              | leaves                         | answered by                  |
| -------------------------------------------------- | ------------------------------ | ---------------------------- |
| while content is received                          | a file `spool/incoming-…`      | `repair.recover` removes it  |
| in `accept`, the spool file renamed, not committed | a file `spool/<id>` of no      | `repair.recover` removes it; |
|                                                    | message                        | the client had no 250        |
| after the commit of `accept`                       | the message                    | is delivered                 |
| during an attempt                                  | the envelope, due as before    | is tried again               |
| after a delivery, before `settle`                  | the envelope, due as before    | is tried again: a duplicate  |
| in `settle` or `remove`, committed, the spool file | a file `spool/<id>` of no      | `repair.recover` removes it  |
| not yet removed                                    | message                        |                              |
| in `set_aside`, not committed                      | files in `damaged/`            | are replaced next time       |
| while an older database is migrated                | the database as it was, a copy | is migrated at the next      |
|                                                    |                                | start                        |
| the new marker written beside, not yet renamed     | `queue.made.new`               | the next `loss.note`         |

The modules, from the ground up: `values`, `errors`; `decoding`, `rows`; `sql_schema`, `migration`, `loss`;
`spool_files`, `database`, `meta`; `destinations`, `envelopes`; then the parts of `Queue`, each an attribute of it:
`entries`, `due`, `operator`, `repair`, `waits`, and `log`, of the module `message_log_table`.
"""
