"""The command line: argv -> options -> one call."""
