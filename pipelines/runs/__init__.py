"""One run of a job, from the request to the exit code, and the reports about it."""
