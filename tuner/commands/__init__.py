"""What each command of `tuner` does, once its words are parsed: prepare, run, publish."""
