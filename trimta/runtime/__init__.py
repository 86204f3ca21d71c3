"""Tools that Trio tasks share: disk, clocks, events, streams, TLS, privileges.  From here up, modules know Trio."""
