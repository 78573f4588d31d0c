"""What can be run: tasks, the methods of comparisons, presets of the paper."""
