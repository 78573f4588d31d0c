"""What is shown: statistics, tables, pictures."""
