"""The routing of mail: routes, mailboxes, aliases, the retry schedule.  No I/O."""
