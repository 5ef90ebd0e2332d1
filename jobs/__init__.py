"""Commands: one file a job, run with python or `ray job submit`."""
