"""What looks at every file of a data set."""
