"""What every task uses: disk, clocks, events, streams, TLS, privileges.  From here up, modules know Trio."""
