"""Where time goes, beside what would be used instead: `python -m scripts.profile PART`."""
