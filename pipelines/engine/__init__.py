"""All of Ray: how chunks are scheduled, watched over and retried."""
