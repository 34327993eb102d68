"""Tools that check, execute and render the book, and tools that record its measurements."""
