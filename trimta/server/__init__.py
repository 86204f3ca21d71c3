"""The whole: start, nursery tree, signals, reload, shutdown."""
