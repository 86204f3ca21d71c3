"""Where mail goes: routes, mailboxes, aliases, retries.  No input, no output."""
