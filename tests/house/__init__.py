"""The rules of this house: each is a function that takes the source files and yields what breaks the rule."""
