"""gRPC at the edge: decode, check, authorise, call storage, encode."""
