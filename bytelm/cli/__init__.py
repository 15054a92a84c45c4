"""The command line: parses arguments, calls the library, prints. Nothing here computes."""

from bytelm.cli.app import main as main
