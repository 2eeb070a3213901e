"""`python -m skipway`, for launchers that start modules."""

from skipway.cli import main

if __name__ == "__main__":
    main()
