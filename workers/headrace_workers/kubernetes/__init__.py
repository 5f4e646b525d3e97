"""The worker type `kubernetes`: each run is a job."""
