"""What lies in an output: names, schemas, files of rows, marks, and what is there for people."""
