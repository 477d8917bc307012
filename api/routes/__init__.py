"""One module per group of routes. Each route reads its input, calls one command and words the answer."""
