"""The command `adaptive-split`: one small file per subcommand."""
