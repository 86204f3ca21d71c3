"""The SMTP protocol, both sides: from octets to events and back.  No I/O, no clock, no trio."""
