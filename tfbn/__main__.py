"""`python -m tfbn`, the command `tfbn`."""

from .cli import main

main(prog_name="tfbn")
