"""The SMTP protocol, both sides: from octets to commands, content and replies, and back.  No I/O, no clock, no trio."""
