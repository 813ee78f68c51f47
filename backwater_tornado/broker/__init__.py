"""The broker: queues of messages that are opaque to it, handed to workers under leases, and their results."""
