"""Where it runs: the command line, run directories, and the only code that launches Ray."""
