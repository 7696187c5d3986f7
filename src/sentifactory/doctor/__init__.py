"""What is installed here, what the machine can do, what has been made already, and which command makes the rest."""
