"""Ray's part: the cluster, the server that answers the arena, the trainer. Nothing else imports ray."""
