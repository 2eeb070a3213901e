"""The page and the pictures that show what a run learned and where it fails."""
