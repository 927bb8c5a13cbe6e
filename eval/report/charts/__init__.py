"""Charts that only this page has."""
