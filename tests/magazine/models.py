"""The app of the models that the pages of the documentation define."""
