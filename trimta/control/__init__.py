"""What can be done to a running server, and the socket that asks for it."""
