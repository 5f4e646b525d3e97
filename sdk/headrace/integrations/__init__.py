"""What works together with other products, each part with an extra of its own."""
