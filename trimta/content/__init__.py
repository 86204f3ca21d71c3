"""What a message holds: header fields, what it needs of a host, re-encoding, DSNs.  No input, no output."""
