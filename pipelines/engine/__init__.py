"""All use of Ray: how chunks are scheduled, supervised and retried."""
