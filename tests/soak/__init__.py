"""The second tier of tests: full figures, run by hand; see tests/soak/__main__.py."""
