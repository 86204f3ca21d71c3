"""The server as a whole: start, nursery tree, signals, reload, shutdown."""
