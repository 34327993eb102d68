"""Builds the book: pairs, checks, executes and renders the chapters, and looks at the site."""
