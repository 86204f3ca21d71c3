"""What SMTP says: octets to events and back.  No I/O, no clock, no trio."""
