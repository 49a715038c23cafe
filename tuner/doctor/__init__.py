"""What a night of tuning would trip over, found in a minute: each check gives findings."""
