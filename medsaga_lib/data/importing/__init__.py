"""Turns data sets in the layouts of other tools into folders of the project's format."""
