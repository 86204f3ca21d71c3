"""conf.toml: from a file to frozen values, every mistake with its line."""
