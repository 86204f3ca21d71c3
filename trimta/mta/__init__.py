"""What runs: the only floor that knows trio."""
