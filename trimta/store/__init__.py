"""What survives a crash: blocking calls, no trio, no SMTP."""
