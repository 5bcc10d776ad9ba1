"""The command line. It reads the deployment file, starts what was asked for, and turns errors into one line."""
