"""Parts for other packages. Each imports the package that it is for, and nothing imports it."""
