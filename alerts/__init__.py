"""What is watched: the metrics contract, recording rules and alerts, their runbooks."""
