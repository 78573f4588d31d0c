"""What remembers: run folders, checkpoints, collected rows."""
