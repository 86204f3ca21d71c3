"""What mail is: values and pure functions.  No I/O, no clock, no trio."""
