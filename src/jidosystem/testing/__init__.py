"""For tests: what adapters must keep (`conformance`)."""
