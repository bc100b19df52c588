"""What turns the pages and docstrings into the site, beyond what Sphinx does by itself."""
