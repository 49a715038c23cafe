"""What each command of `tuner` does, once its words are parsed: wire the parts, run, publish."""
