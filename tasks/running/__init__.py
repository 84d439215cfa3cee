"""What happens around a stage: reporter, journal, processes, hashes."""
