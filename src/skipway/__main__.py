"""`python -m skipway`, for launchers that start modules."""

from skipway.cli import main

main()
