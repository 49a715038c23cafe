"""Which configuration is measured next, and which one is recommended in the end."""
