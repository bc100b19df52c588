"""The page of ``coupler report``: what one or several runs did, as one HTML file that needs no network."""

from coupler.report.page.page import write_page

__all__ = ["write_page"]
