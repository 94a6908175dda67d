"""Any JetStream stream: found or created, asked and read."""
