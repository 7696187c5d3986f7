"""Checks the machine, the environments and the files of a project, and names the command for what is missing."""
