"""What trains: trials, experiments in a folder, devices and hosts."""
