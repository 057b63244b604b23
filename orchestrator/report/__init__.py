"""One readable page and its pictures, made from the state of a sweep."""
