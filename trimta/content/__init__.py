"""The content of messages: header fields, MIME, what a host must offer to take it, re-encoding, DSNs.  Without I/O."""
