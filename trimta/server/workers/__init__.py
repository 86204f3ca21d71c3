"""Worker processes: sessions in several processes of one server, whose first process holds everything else.

first process   accepts connections, holds the queue, the scheduler, the limits, the faults, the log and the controls
starter         a process that forks workers (starter); it has no threads, and gives up root as the first process does
worker          sessions, their Maildir copies and spool files (worker_main, remote_parts)

Between them are a channel for what is said (runtime.channel), a way on which connections are handed over (handover),
and a page of memory for what all must see at once (shared_page).
"""
