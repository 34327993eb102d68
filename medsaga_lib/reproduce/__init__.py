"""Trains the grid behind a published table, and compares our numbers with the printed ones.

`process` runs one command in a process of its own, `runs` makes a row of it, `cluster` distributes
runs, `published` has the tables, `grid` plans, `verdicts` compares, `page` writes, and `submission`
merges the rows of several people.
"""
