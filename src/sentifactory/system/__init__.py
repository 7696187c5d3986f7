"""The operating system: files, locks, processes, hardware, the environment."""
