"""The suite file: schema, methods, fields."""
