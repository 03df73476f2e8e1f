"""The subcommands of `astra`: a file each, with `add` (its arguments) and `run`."""
