"""`python -m pipeline` is the `kalvit` command."""

from pipeline.entry import main

main()
