"""What acts: gRPC services, peer streams, clocks, the pump that drives the core."""
