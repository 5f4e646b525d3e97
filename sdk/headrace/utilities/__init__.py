"""Small public tools of flow authors: annotations of arguments, traversal of collections."""
