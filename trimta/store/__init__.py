"""Storage that survives a crash: the queue, Maildirs, the spool.  Calls block; no trio, no SMTP."""
