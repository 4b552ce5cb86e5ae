"""The SavedModel format."""
