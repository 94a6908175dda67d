"""The template tag libraries of the package."""
