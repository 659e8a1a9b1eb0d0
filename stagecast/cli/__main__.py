"""`python -m stagecast.cli` is the `stagecast` command."""

from stagecast.cli import main

main()
