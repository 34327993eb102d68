"""Claims of the papers as data, the check of each, and its verdict."""
