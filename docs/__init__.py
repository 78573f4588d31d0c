"""Pages, and the code that generates some of them."""
