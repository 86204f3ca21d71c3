"""The commands of trimta, each in a module of its name, and what they share."""
