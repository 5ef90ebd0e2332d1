"""The contents of an output: names, schemas, files of rows, marks, and files for people."""
